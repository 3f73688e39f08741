//! SA_Retr by SPI (draft-vidya-ipsec-failover-redundancy section 5.1.2).

use std::time::Duration;

use hitless::api;

use crate::world::World;

fn figure(world: &mut World, who: u8, event: &str) -> u64 {
    let now = world.now;
    let text = api::metrics(&world.gateway(who).metrics(now));
    let series = format!("hitless_sa_retr_total{{event=\"{event}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap().parse().unwrap()
}

#[test]
fn an_spi_that_nobody_knows_is_asked_for_at_a_bounded_rate_and_its_packets_are_counted() {
    let mut world = World::with_traffic(121);
    let active = world.leader().unwrap();
    let mut frame = world
        .esp()
        .iter()
        .find(|esp| esp.port == 0)
        .unwrap()
        .frame
        .clone();
    let before = world.drops(active, "unknown_spi");
    for n in 0..500u16 {
        // Behind Ethernet and IPv4; in this member's part of the space.
        frame[34..38].copy_from_slice(&[active, 0xee, (n >> 8) as u8, n as u8]);
        assert!(world.outside.inject(&frame));
        world.run(Duration::from_millis(2));
    }
    assert_eq!(world.drops(active, "unknown_spi"), before + 500);
    let asked = figure(&mut world, active, "asked");
    assert!((5..=11).contains(&asked), "{asked} in a second");
    assert_eq!(figure(&mut world, active, "adopted"), 0);
    assert_eq!(figure(&mut world, 3 - active, "answered"), 0);
    world.traffic_flows();
    world.audit();
}
