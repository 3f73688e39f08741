//! What is on the wire, octet by octet: one packet for each sender, with something in every field.

use super::*;

const NAME: SaId = SaId {
    creator: MemberId(1),
    incarnation: Incarnation(7),
    counter: 9,
};

fn epoch(counter: u64) -> WireEpoch {
    WireEpoch {
        counter,
        leader: 1,
        incarnation: 7,
    }
}

fn grant() -> Grant {
    let lease = Lease {
        grant: SequenceNumber(65_536),
        high_water: SequenceNumber(128),
    };
    Grant {
        skip_sum: 11,
        no_right: true,
        esn: true,
        ..Grant::new(NAME, lease)
    }
}

fn base() -> Packet {
    Packet {
        version: VERSION,
        config: vec![7; 32],
        incarnation: 7,
        serial: 100,
        time: 1_000_000_007,
        to_incarnation: 3,
        time_echo: 999_000_000,
        challenge: 0x0123_4567_89ab_cdef,
        echo: 0xfedc_ba98_7654_3210,
        promised: Some(epoch(4)),
        led: Some(epoch(5)),
        role: 5,
        epoch: Some(epoch(5)),
        bare: true,
        objects: 2,
        unhealthy: true,
        process: 42,
        session: Some(Sid {
            leader: 1,
            standby: 2,
        }),
        ..Packet::default()
    }
}

fn leader() -> Packet {
    let mut records = Vec::new();
    for (n, kind) in (1..).zip([STORE, DELETE, FINAL, HAND_OVER]) {
        let mut record = Record::default();
        record.n = n;
        record.kind = kind;
        record.object = 0x0100_0000_0000_0001;
        record.version = 3;
        record.body = vec![0xaa; 5];
        record.children = vec![grant()];
        record.window = vec![0xbb; 3];
        records.push(record);
    }
    let checkpoint = crate::Checkpoint {
        outbound_next: SequenceNumber(1),
        inbound_top: SequenceNumber(2),
        packets_out: 3,
        bytes_out: 4,
        packets_in: 5,
        bytes_in: 6,
    };
    Packet {
        records,
        offers: vec![grant()],
        checkpoints: vec![WireCheckpoint::new(NAME, &checkpoint)],
        admit: Some(4),
        unvouched: true,
        ..base()
    }
}

fn standby() -> Packet {
    Packet {
        role: 3,
        applied: 4,
        recorded: vec![grant()],
        resign: true,
        ..base()
    }
}

fn repair() -> Packet {
    Packet {
        role: 3,
        lacks: vec![WireSa::new(NAME)],
        ..base()
    }
}

fn late() -> Packet {
    Packet {
        role: 3,
        features: 5,
        late: vec![vec![0, 1, 0x45]],
        ..base()
    }
}

/// SA_Retr, and its answer.
fn retrieve() -> Packet {
    Packet {
        role: 5,
        features: 3,
        retrieve: vec![0xc001_cafe, 7],
        ..base()
    }
}

fn retrieved() -> Packet {
    let mut record = Record::default();
    record.kind = STORE;
    record.object = 0x0100_0000_0000_0001;
    record.version = 3;
    record.body = vec![0xaa; 5];
    record.children = vec![grant()];
    Packet {
        role: 3,
        features: 3,
        retrieved: Some(record),
        ..base()
    }
}

/// Copies that failed their drill.
fn broken() -> Packet {
    Packet {
        role: 3,
        partly: true,
        broken: vec![WireSa::new(NAME)],
        broken_count: 9,
        ..base()
    }
}

/// The same, with what is wrong with each, and with the networks of its ports.
fn flawed() -> Packet {
    Packet {
        flaws: vec![4],
        layout: 0x0102_0304_0506_0708,
        ..broken()
    }
}

/// What came through.
fn largest() -> Packet {
    Packet {
        role: 3,
        applied: 4,
        largest: 1_472,
        ..base()
    }
}

fn candidate() -> Packet {
    Packet {
        role: 4,
        join: 77,
        candidate: Some(epoch(6)),
        candidate_base: Some(epoch(5)),
        ..base()
    }
}

/// Versions N and N + 1 run together in a planned upgrade: what is on the wire stays as it is. A new
/// field gets a new number and a new sample; these files never change.
#[test]
fn every_message_is_written_and_read_as_its_golden_file_says() {
    let samples = [
        (include_str!("../../tests/golden/leader.hex"), leader()),
        (include_str!("../../tests/golden/standby.hex"), standby()),
        (
            include_str!("../../tests/golden/candidate.hex"),
            candidate(),
        ),
        (include_str!("../../tests/golden/repair.hex"), repair()),
        (include_str!("../../tests/golden/late.hex"), late()),
        (include_str!("../../tests/golden/retrieve.hex"), retrieve()),
        (
            include_str!("../../tests/golden/retrieved.hex"),
            retrieved(),
        ),
        (include_str!("../../tests/golden/broken.hex"), broken()),
        (include_str!("../../tests/golden/flawed.hex"), flawed()),
        (include_str!("../../tests/golden/largest.hex"), largest()),
    ];
    for (golden, packet) in samples {
        let sealed = packet.seal(&[]);
        let hex: String = sealed.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(golden.trim(), hex);
        assert!(Packet::open(&sealed) == Some(packet));
    }
}
