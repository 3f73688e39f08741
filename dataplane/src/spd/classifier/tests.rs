//! The tree says what the list says, and stays small.

use proptest::prelude::*;

use super::*;

fn naive(volumes: &[Volume<u32>], point: &Point<u32>) -> Option<u32> {
    let found = volumes.iter().position(|volume| volume.contains(point));
    found.map(|at| at as u32)
}

fn tree(volumes: &[Volume<u32>]) -> Classifier<u32> {
    Classifier::new((0..).zip(volumes.iter().copied()))
}

/// Points where something may change: at each box's corners and just beside them.
fn corners(volume: &Volume<u32>) -> [Point<u32>; 4] {
    let beside = |point: Point<u32>, by: i32| point.map(|at| at.wrapping_add_signed(by));
    [
        volume.low,
        volume.high,
        beside(volume.low, -1),
        beside(volume.high, 1),
    ]
}

fn assert_same(volumes: &[Volume<u32>], points: &[Point<u32>]) {
    let tree = tree(volumes);
    for point in volumes
        .iter()
        .flat_map(corners)
        .chain(points.iter().copied())
    {
        assert_eq!(tree.find(&point), naive(volumes, &point), "{point:?}");
    }
    let all: Vec<Point<u32>> = volumes.iter().flat_map(corners).collect();
    for points in all.chunks(13) {
        let mut found = vec![Some(7); points.len()];
        tree.find_all(points, &mut found);
        let expected: Vec<_> = points.iter().map(|point| tree.find(point)).collect();
        assert_eq!(found, expected);
    }
    assert!(
        tree.size() <= 4 * volumes.len() + LEAF,
        "{} boxes",
        tree.size()
    );
}

/// Coordinates that often touch, overlap and nest.
fn side() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![
        Just((0, u32::MAX)),
        (0u32..40, 0u32..40).prop_map(|(a, b)| (a.min(b), a.max(b))),
        (0u32..6, any::<u32>()).prop_map(|(bits, at)| {
            let host = u32::MAX.checked_shr(bits).unwrap_or(0);
            (at & !host, at | host)
        }),
        any::<u32>().prop_map(|at| (at, at)),
        // Empty: matches nothing.
        Just((9, 3)),
    ]
}

fn volume() -> impl Strategy<Value = Volume<u32>> {
    [side(), side(), side(), side(), side()].prop_map(|sides| Volume {
        low: sides.map(|(low, _)| low),
        high: sides.map(|(_, high)| high),
    })
}

proptest! {
    #[test]
    fn rfc4301_section_4_4_1_the_first_box_in_order_is_found_as_in_a_list(
        volumes in prop::collection::vec(volume(), 0..150),
        points in prop::collection::vec(prop::array::uniform5(prop_oneof![0u32..40, any::<u32>()]), 20),
    ) {
        assert_same(&volumes, &points);
    }
}

fn everything_but(dimension: usize, low: u32, high: u32) -> Volume<u32> {
    let mut volume = Volume::EVERYTHING;
    (volume.low[dimension], volume.high[dimension]) = (low, high);
    volume
}

#[test]
fn boxes_that_nest_or_overlap_in_every_way_stay_correct_and_linear() {
    let n = 2000;
    let shuffled = |i: u32| i.wrapping_mul(1_021) % n;
    // Nested like onions, in one dimension and in two.
    let onion = |i: u32| everything_but(1, shuffled(i), 3 * n - shuffled(i));
    assert_same(&(0..n).map(onion).collect::<Vec<_>>(), &[]);
    let corner = |i: u32| {
        let mut volume = everything_but(0, 0, shuffled(i));
        volume.high[1] = n - shuffled(i);
        volume
    };
    assert_same(&(0..n).map(corner).collect::<Vec<_>>(), &[]);
    // Half of them cross the other half.
    let cross = |i: u32| everything_but((i % 2) as usize, i, i + 1);
    assert_same(&(0..n).map(cross).collect::<Vec<_>>(), &[]);
    // All the same.
    assert_same(&vec![everything_but(4, 80, 80); n as usize], &[]);
    // A window that slides.
    let slide = |i: u32| everything_but(3, shuffled(i), shuffled(i) + 300);
    assert_same(&(0..n).map(slide).collect::<Vec<_>>(), &[]);
}

/// Boxes that a search compares, for a cost that does not depend on the machine.
fn compared(tree: &Classifier<u32>, child: Child, point: &Point<u32>) -> usize {
    match tree.nodes.get(child.node as usize) {
        Some(Node::Inner { cut, sides, across }) => {
            let side = sides[usize::from(point[cut.dimension] >= cut.at)];
            compared(tree, side, point) + compared(tree, *across, point)
        }
        Some(Node::Leaf { start, end }) => (end - start) as usize,
        None => 0,
    }
}

#[test]
fn ten_thousand_policies_of_a_gateway_cost_a_few_comparisons() {
    // Ten policies for everybody, then a network pair each, some narrowed to ports.
    let mut volumes: Vec<Volume<u32>> = (0..10).map(|i| everything_but(2, i, i)).collect();
    volumes.extend((0..10_000u32).map(|i| {
        let mut volume = everything_but(0, 0x0a01_0000, 0x0a01_ffff);
        let remote = 0x0a80_0000 + i * 256;
        (volume.low[1], volume.high[1]) = (remote, remote + 255);
        if i % 3 == 0 {
            (volume.low[2], volume.high[2]) = (17, 17);
            (volume.low[4], volume.high[4]) = (1000, 2000);
        }
        volume
    }));
    let tree = tree(&volumes);
    let most = volumes
        .iter()
        .map(|volume| compared(&tree, tree.root, &volume.low))
        .max();
    assert!(most <= Some(40), "{most:?} boxes compared");
    assert!(tree.size() <= 2 * volumes.len(), "{}", tree.size());
}
