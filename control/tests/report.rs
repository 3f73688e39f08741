//! `list-sas` and `status` as text.

use hitless::api::{
    ChildSaStatus, DropStatus, GatewayStatus, IkeSaStatus, IkeState, LeaseStatus, MemberStatus,
    PortStatus, Role, SyncStatus, list_sas, status,
};

fn child() -> ChildSaStatus {
    ChildSaStatus {
        name: "net-net".into(),
        unique_id: 1,
        reqid: 1,
        state: "INSTALLED".into(),
        mode: "TUNNEL".into(),
        encapsulated: true,
        algorithms: "AES_GCM_16-128".into(),
        esn: true,
        spi_in: "c8fb5536".into(),
        spi_out: "ce825208".into(),
        installed: 2740,
        rekey_time: Some(2247),
        life_time: Some(3200),
        bytes_in: 168,
        packets_in: 2,
        used_in: Some(2726),
        bytes_out: 168,
        packets_out: 2,
        used_out: Some(2726),
        local_ts: vec!["10.1.0.0/16".into()],
        remote_ts: vec!["10.2.0.0/16".into()],
        lease: None,
    }
}

fn ike() -> IkeSaStatus {
    IkeSaStatus {
        name: "gw-gw".into(),
        unique_id: 1,
        state: IkeState::Established,
        initiator_spi: "3a902cfcdd0b42e2".into(),
        responder_spi: "ee60f4ad85f2b723".into(),
        initiator: true,
        local_id: "moon.strongswan.org".into(),
        local_host: "192.168.0.1".into(),
        local_vips: Vec::new(),
        dns: Vec::new(),
        remote_vips: vec!["10.3.0.7".into()],
        local_port: 500,
        remote_id: "sun.strongswan.org".into(),
        remote_eap_id: None,
        remote_host: "192.168.0.2".into(),
        remote_port: 500,
        algorithms: "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519".into(),
        established: Some(2740),
        rekey_time: Some(8038),
        reauth_time: None,
        authenticated: "psk".into(),
        certificate: None,
        ppk: false,
        next_message_id: 2,
        expected_message_id: 0,
        message_id_sync: false,
        children: vec![child()],
    }
}

#[test]
fn list_sas_looks_as_swanctl_s_does() {
    // The layout of strongSwan's list_sas.c, from a real run.
    let wanted = "\
gw-gw: #1, ESTABLISHED, IKEv2, 3a902cfcdd0b42e2_i* ee60f4ad85f2b723_r
  local  'moon.strongswan.org' @ 192.168.0.1[500]
  remote 'sun.strongswan.org' @ 192.168.0.2[500] [10.3.0.7]
  AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519
  established 2740s ago, rekeying in 8038s
  net-net: #1, reqid 1, INSTALLED, TUNNEL-in-UDP, ESP:AES_GCM_16-128/ESN
    installed 2740s ago, rekeying in 2247s, expires in 3200s
    in  c8fb5536,    168 bytes,     2 packets,  2726s ago
    out ce825208,    168 bytes,     2 packets,  2726s ago
    local  10.1.0.0/16
    remote 10.2.0.0/16
";
    assert_eq!(list_sas(&[ike()]), wanted);
    assert_eq!(list_sas(&[]), "");
}

#[test]
fn a_standby_s_copy_is_passive_and_an_unused_child_has_no_age() {
    let mut sa = ike();
    sa.state = IkeState::Passive;
    sa.initiator = false;
    sa.rekey_time = None;
    let child = &mut sa.children[0];
    child.encapsulated = false;
    child.esn = false;
    child.rekey_time = None;
    child.life_time = None;
    child.used_in = None;
    child.used_out = None;
    child.local_ts.push("10.3.0.0/16".into());
    let wanted = "\
gw-gw: #1, PASSIVE, IKEv2, 3a902cfcdd0b42e2_i ee60f4ad85f2b723_r*
  local  'moon.strongswan.org' @ 192.168.0.1[500]
  remote 'sun.strongswan.org' @ 192.168.0.2[500] [10.3.0.7]
  AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519
  established 2740s ago
  net-net: #1, reqid 1, INSTALLED, TUNNEL, ESP:AES_GCM_16-128
    installed 2740s ago
    in  c8fb5536,    168 bytes,     2 packets
    out ce825208,    168 bytes,     2 packets
    local  10.1.0.0/16 10.3.0.0/16
    remote 10.2.0.0/16
";
    assert_eq!(list_sas(&[sa]), wanted);
}

#[test]
fn a_peer_s_identity_cannot_move_the_cursor() {
    let mut sa = ike();
    sa.remote_id = "evil\u{1b}[2J\nESTABLISHED".into();
    let text = list_sas(&[sa]);
    assert!(text.contains("'evil\\u{1b}[2J\\nESTABLISHED'"), "{text}");
    assert_eq!(text.lines().count(), 11);
}

fn gateway() -> GatewayStatus {
    let lease = |child: &str, next, grant| LeaseStatus {
        sa: "1.4.7".into(),
        child: child.into(),
        next,
        grant,
        inbound_top: 900,
        high_water: 1156,
        stalls: 0,
    };
    GatewayStatus {
        version: "0.1.0".into(),
        cluster: "hq".into(),
        member: 1,
        incarnation: 4,
        role: Role::Active,
        epoch: Some("12.1.4".into()),
        leader: Some(1),
        uptime: 3600,
        degraded: true,
        members: vec![
            MemberStatus {
                id: 2,
                address: "10.0.0.2:4510".into(),
                priority: 100,
                role: Some(Role::Standby),
                incarnation: Some(9),
                healthy: true,
                silent_for: Some(4),
                bound: true,
                able: true,
                backlog: 3,
            },
            MemberStatus {
                id: 3,
                address: "10.0.0.3:4510".into(),
                priority: 50,
                role: None,
                incarnation: None,
                healthy: false,
                silent_for: None,
                bound: false,
                able: false,
                backlog: 0,
            },
        ],
        sync: SyncStatus {
            held: 1,
            lag: 2,
            objects: 5,
            vouched: false,
        },
        ike_sas: 1,
        child_sas: 1,
        leases: vec![lease("office.net", 1001, 66536)],
        packets_in: 900,
        bytes_in: 90000,
        packets_out: 1000,
        bytes_out: 100000,
        drops: vec![
            DropStatus {
                reason: "replay".into(),
                xfrm: "XfrmInStateSeqError".into(),
                packets: 3,
            },
            DropStatus {
                reason: "not_active".into(),
                xfrm: String::new(),
                packets: 1,
            },
        ],
        aead: "aws-lc-rs".into(),
        workers: 1,
        key_log: None,
        ports: vec![PortStatus {
            name: "outside".into(),
            driver: "af_xdp".into(),
            interface: "eth0".into(),
            mode: "skb".into(),
            protected: false,
            mac: "02:00:5e:00:00:01".into(),
            addresses: vec!["203.0.113.1/24".into()],
            rx_packets: 901,
            rx_bytes: 99000,
            tx_packets: 1001,
            tx_bytes: 110000,
            dropped: 0,
        }],
    }
}

#[test]
fn status_says_who_leads_and_what_is_left() {
    let wanted = "\
hitless 0.1.0, cluster hq, member 1, up 3600s
  role active, epoch 12.1.4, led by us, incarnation 4, DEGRADED
  sas 1 IKE, 1 child; in 900 packets, 90000 bytes; out 1000 packets, 100000 bytes
  aead aws-lc-rs, 1 worker
members:
  2 10.0.0.2:4510, standby, heard 4 ms ago, may take over, 3 records behind
  3 10.0.0.3:4510, never seen
  sync: 5 objects, 1 held, lag 2 ms
leases:
  office.net (1.4.7): next 1001, grant 66536 (65536 left); in 900, high water 1156; 0 stalls
ports:
  outside (peers): eth0 af_xdp skb, 02:00:5e:00:00:01, 203.0.113.1/24
    in 901 packets, 99000 bytes; out 1001 packets, 110000 bytes; 0 dropped
drops:
  replay               XfrmInStateSeqError      3
  not_active           -                        1
";
    assert_eq!(status(&gateway()), wanted);
}

#[test]
fn status_of_a_lonely_member() {
    let mut gateway = gateway();
    gateway.role = Role::Out;
    gateway.epoch = None;
    gateway.leader = None;
    gateway.degraded = false;
    gateway.members.clear();
    gateway.leases.clear();
    gateway.drops.clear();
    gateway.key_log = Some("/tmp/esp_sa".into());
    let text = status(&gateway);
    assert!(
        text.contains("\n  WARNING: every key is written to /tmp/esp_sa\n"),
        "{text}"
    );
    assert!(
        text.contains("role out, epoch none, incarnation 4\n"),
        "{text}"
    );
    assert!(text.contains("members: no other\n"), "{text}");
    assert!(text.contains("drops: none\n"), "{text}");
    assert!(!text.contains("leases"), "{text}");
}

#[test]
fn many_leases_are_cut_short_and_say_so() {
    let mut gateway = gateway();
    gateway.leases = vec![gateway.leases[0].clone(); 8];
    gateway.child_sas = 20;
    assert!(status(&gateway).contains("  and 12 more, further from their end: hitless show sa\n"));
}

#[test]
fn reports_survive_json() {
    let status = gateway();
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(
        serde_json::from_str::<GatewayStatus>(&text).unwrap(),
        status
    );
    for key in [
        "\"uptime_seconds\":3600",
        "\"silent_for_milliseconds\":4",
        "\"lag_milliseconds\":2",
    ] {
        assert!(text.contains(key), "{key}: {text}");
    }
    let sas = vec![ike()];
    let text = serde_json::to_string(&sas).unwrap();
    assert!(text.contains("\"established_seconds\":2740"), "{text}");
    assert!(text.contains("\"state\":\"ESTABLISHED\""), "{text}");
    assert_eq!(
        serde_json::from_str::<Vec<IkeSaStatus>>(&text).unwrap(),
        sas
    );
}

#[test]
fn what_is_left_of_a_lease_never_wraps() {
    let mut lease = gateway().leases[0].clone();
    assert_eq!(lease.remaining(), 65536);
    lease.next = lease.grant + 1;
    assert_eq!(lease.remaining(), 0);
    lease.next = u64::MAX;
    lease.grant = u64::MAX;
    assert!(lease.remaining() <= 1);
}
