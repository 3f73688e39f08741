//! Finds the first of many boxes that a point lies in: which policy is the first to match a packet,
//! without asking all of them.
//!
//! ```text
//!                 [ remote < 10.2.128.0 ? ]
//!        below /          | across          \ above
//!   its own boxes   those on both sides    its own boxes      leaf: a short list, in order
//! ```
//!
//! A search goes below or above, and also across unless everything there comes later than what it
//! has found. Few boxes that lie across are copied to both sides instead; a box that covers all of
//! a side hides every later one there. So the tree stays linear in the policies, and no set of
//! policies costs more than the list would.

use smallvec::SmallVec;

use crate::port::BURST;

/// Local address, remote address, protocol, local port, remote port.
pub(super) const DIMENSIONS: usize = 5;
pub(super) const PROTOCOL: usize = 2;
pub(super) const LOCAL_PORT: usize = 3;
pub(super) const REMOTE_PORT: usize = 4;
/// Boxes that are quicker asked in order than sorted further.
const LEAF: usize = 8;
/// Cuts tried in each dimension.
const CUTS: usize = 16;
const NONE: u32 = u32::MAX;

/// A coordinate.
pub(super) trait Coordinate: Copy + Ord + From<u32> {
    const LEAST: Self;
    const GREATEST: Self;
    /// The one before, of any but the least.
    fn previous(self) -> Self;
    /// The one after, of any but the greatest.
    fn next(self) -> Self;
}

macro_rules! coordinate {
    ($type:ty) => {
        impl Coordinate for $type {
            const LEAST: Self = <$type>::MIN;
            const GREATEST: Self = <$type>::MAX;
            fn previous(self) -> Self {
                self.wrapping_sub(1)
            }
            fn next(self) -> Self {
                self.wrapping_add(1)
            }
        }
    };
}

coordinate!(u32);
coordinate!(u128);

pub(super) type Point<A> = [A; DIMENSIONS];

/// What one policy matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Volume<A> {
    pub low: Point<A>,
    pub high: Point<A>,
}

impl<A: Coordinate> Volume<A> {
    const EVERYTHING: Volume<A> = Volume {
        low: [A::LEAST; DIMENSIONS],
        high: [A::GREATEST; DIMENSIONS],
    };

    fn sides(&self) -> impl Iterator<Item = (A, A)> {
        self.low.into_iter().zip(self.high)
    }

    #[inline]
    fn contains(&self, point: &Point<A>) -> bool {
        self.sides()
            .zip(point)
            .all(|((low, high), at)| low <= *at && *at <= high)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sides().any(|(low, high)| low > high)
    }

    fn covers(&self, other: &Volume<A>) -> bool {
        self.sides()
            .zip(other.sides())
            .all(|((low, high), (from, to))| low <= from && to <= high)
    }

    fn side(&self, dimension: usize) -> Option<(A, A)> {
        Some((*self.low.get(dimension)?, *self.high.get(dimension)?))
    }

    /// The two parts of it, below the point and from the point on.
    fn cut(&self, Cut { dimension, at }: Cut<A>) -> (Volume<A>, Volume<A>) {
        let (mut below, mut above) = (*self, *self);
        if let Some(high) = below.high.get_mut(dimension) {
            *high = at.previous();
        }
        if let Some(low) = above.low.get_mut(dimension) {
            *low = at;
        }
        (below, above)
    }
}

/// A box and its place in the order.
#[derive(Clone, Copy, Debug)]
struct Rule<A> {
    volume: Volume<A>,
    policy: u32,
}

#[derive(Clone, Copy, Debug)]
struct Cut<A> {
    dimension: usize,
    at: A,
}

/// A part of the tree, and the first policy in it.
#[derive(Clone, Copy, Debug)]
struct Child {
    node: u32,
    first: u32,
}

const NOTHING: Child = Child {
    node: NONE,
    first: NONE,
};

#[derive(Clone, Copy, Debug)]
enum Node<A> {
    Leaf {
        start: u32,
        end: u32,
    },
    Inner {
        cut: Cut<A>,
        sides: [Child; 2],
        across: Child,
    },
}

/// The tree.
#[derive(Clone, Debug)]
pub(super) struct Classifier<A> {
    nodes: Vec<Node<A>>,
    /// The leaves' boxes, each leaf's in order.
    rules: Vec<Rule<A>>,
    root: Child,
}

impl<A: Coordinate> Classifier<A> {
    /// Of boxes with the numbers of their policies, in ascending order.
    pub(super) fn new(volumes: impl IntoIterator<Item = (u32, Volume<A>)>) -> Classifier<A> {
        let rules: Vec<Rule<A>> = volumes
            .into_iter()
            .filter(|(_, volume)| !volume.is_empty())
            .map(|(policy, volume)| Rule { volume, policy })
            .collect();
        let mut tree = Classifier {
            nodes: Vec::new(),
            rules: Vec::new(),
            root: NOTHING,
        };
        tree.root = tree.build(&Volume::EVERYTHING, rules);
        tree
    }

    /// The first policy whose box the point lies in.
    #[inline]
    pub(super) fn find(&self, point: &Point<A>) -> Option<u32> {
        let mut best = NONE;
        self.search(self.root, point, &mut best);
        (best != NONE).then_some(best)
    }

    /// As [`Classifier::find`], of several points: their searches take turns, so that one goes on
    /// while another waits for memory. `found` is as long as `points`.
    pub(super) fn find_all(&self, points: &[Point<A>], found: &mut [Option<u32>]) {
        let begin = |_| Search::new(self.root);
        let mut searches: SmallVec<[Search; BURST]> = points.iter().map(begin).collect();
        let mut going = true;
        while going {
            going = false;
            for (search, point) in searches.iter_mut().zip(points) {
                going |= self.step(search, point);
            }
        }
        for (found, search) in found.iter_mut().zip(&searches) {
            *found = (search.best != NONE).then_some(search.best);
        }
    }

    /// Looks at one node. False if there is none left to look at.
    #[inline]
    fn step(&self, search: &mut Search, point: &Point<A>) -> bool {
        let Some(child) = search.take() else {
            return false;
        };
        match self.nodes.get(child.node as usize) {
            Some(Node::Inner { cut, sides, across }) => {
                let (sooner, later) = cut.order(point, *sides, *across);
                if !search.put(later, 1) {
                    self.search(later, point, &mut search.best);
                }
                let kept = search.put(sooner, 0);
                debug_assert!(kept, "a place was taken from where there is now one");
            }
            Some(Node::Leaf { start, end }) => self.scan(*start, *end, point, &mut search.best),
            None => {}
        }
        true
    }

    /// Boxes stored, copies included.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.rules.len()
    }

    fn search(&self, mut child: Child, point: &Point<A>, best: &mut u32) {
        while child.first < *best {
            match self.nodes.get(child.node as usize) {
                Some(Node::Inner { cut, sides, across }) => {
                    let (sooner, later) = cut.order(point, *sides, *across);
                    if later.first < *best {
                        self.search(sooner, point, best);
                        child = later;
                    } else {
                        child = sooner;
                    }
                }
                Some(Node::Leaf { start, end }) => {
                    return self.scan(*start, *end, point, best);
                }
                None => return,
            }
        }
    }

    /// Asks the boxes of a leaf, in order.
    #[inline]
    fn scan(&self, start: u32, end: u32, point: &Point<A>, best: &mut u32) {
        let rules = self.rules.get(start as usize..end as usize);
        let found = rules
            .unwrap_or_default()
            .iter()
            .take_while(|rule| rule.policy < *best)
            .find(|rule| rule.volume.contains(point));
        if let Some(rule) = found {
            *best = rule.policy;
        }
    }

    /// Adds the tree of these boxes within a region. Each level holds at most seven eighths of the
    /// one above, so the depth is logarithmic.
    fn build(&mut self, region: &Volume<A>, mut rules: Vec<Rule<A>>) -> Child {
        // Nothing behind a box that covers the region is ever reached.
        if let Some(last) = rules.iter().position(|rule| rule.volume.covers(region)) {
            rules.truncate(last + 1);
        }
        let Some(first) = rules.first().map(|rule| rule.policy) else {
            return NOTHING;
        };
        let plan = (rules.len() > LEAF).then(|| Plan::best(region, &rules));
        let Some(plan) = plan.flatten() else {
            let start = self.rules.len() as u32;
            self.rules.extend(rules);
            let end = self.rules.len() as u32;
            let node = self.add(Node::Leaf { start, end });
            return Child { node, first };
        };
        let (below, above) = region.cut(plan.cut);
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for rule in rules {
            let [low, high, across] = &mut parts;
            match plan.cut.position(&rule.volume) {
                Position::Below => low.push(rule),
                Position::Above => high.push(rule),
                Position::Across if plan.copies => {
                    low.push(rule);
                    high.push(rule);
                }
                Position::Across => across.push(rule),
            }
        }
        let [low, high, across] = parts;
        let sides = [self.build(&below, low), self.build(&above, high)];
        let across = self.build(region, across);
        let cut = plan.cut;
        let node = self.add(Node::Inner { cut, sides, across });
        Child { node, first }
    }

    fn add(&mut self, node: Node<A>) -> u32 {
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }
}

enum Position {
    Below,
    Above,
    Across,
}

/// Parts of the tree that one search has put off at most; any more are searched at once.
const PUT_OFF: usize = 8;

/// A search that rests between two nodes.
struct Search {
    best: u32,
    waiting: [Child; PUT_OFF],
    count: usize,
}

impl Search {
    fn new(root: Child) -> Search {
        let mut waiting = [NOTHING; PUT_OFF];
        let [first, ..] = &mut waiting;
        *first = root;
        Search {
            best: NONE,
            waiting,
            count: 1,
        }
    }

    /// The next part that may hold an earlier policy than the best one.
    #[inline]
    fn take(&mut self) -> Option<Child> {
        while let Some(last) = self.count.checked_sub(1) {
            self.count = last;
            let child = self.waiting.get(last).copied()?;
            if child.first < self.best {
                return Some(child);
            }
        }
        None
    }

    /// Puts a part off. False if no more than `spare` places are left.
    #[inline]
    fn put(&mut self, child: Child, spare: usize) -> bool {
        if child.first >= self.best {
            return true;
        }
        let last = PUT_OFF - spare;
        match self
            .waiting
            .get_mut(..last)
            .and_then(|all| all.get_mut(self.count))
        {
            Some(place) => {
                *place = child;
                self.count += 1;
                true
            }
            None => false,
        }
    }
}

impl<A: Coordinate> Cut<A> {
    /// Where a point's box can be: first what comes sooner in the order, and likelier spares the
    /// other.
    #[inline]
    fn order(&self, point: &Point<A>, sides: [Child; 2], across: Child) -> (Child, Child) {
        let [below, above] = sides;
        let at = point.get(self.dimension).copied();
        let side = if at < Some(self.at) { below } else { above };
        match side.first < across.first {
            true => (side, across),
            false => (across, side),
        }
    }

    fn position(&self, volume: &Volume<A>) -> Position {
        match volume.side(self.dimension) {
            Some((_, high)) if high < self.at => Position::Below,
            Some((low, _)) if low >= self.at => Position::Above,
            _ => Position::Across,
        }
    }
}

/// How to divide boxes.
#[derive(Clone, Copy)]
struct Plan<A> {
    cut: Cut<A>,
    /// Whether boxes across the cut are copied to both sides.
    copies: bool,
    /// Boxes that a search may still have to look at.
    cost: usize,
}

impl<A: Coordinate> Plan<A> {
    /// The cut that leaves least to look at; none if no cut helps.
    fn best(region: &Volume<A>, rules: &[Rule<A>]) -> Option<Plan<A>> {
        let mut best: Option<Plan<A>> = None;
        for dimension in 0..DIMENSIONS {
            for at in candidates(region, rules, dimension) {
                let plan = Plan::of(region, rules, Cut { dimension, at });
                if let Some(plan) = plan
                    && best.is_none_or(|best| plan.cost < best.cost)
                {
                    best = Some(plan);
                }
            }
        }
        best
    }

    /// What a cut would leave, if it helps.
    fn of(region: &Volume<A>, rules: &[Rule<A>], cut: Cut<A>) -> Option<Plan<A>> {
        let (low, high) = region.cut(cut);
        // Boxes on one side only, across, and on each side with copies up to one that covers it.
        let (mut below, mut above, mut across) = (0, 0, 0);
        let (mut with_below, mut with_above) = (0, 0);
        let (mut below_open, mut above_open) = (true, true);
        for rule in rules {
            let (mut on_below, mut on_above) = (true, true);
            match cut.position(&rule.volume) {
                Position::Below => (below, on_above) = (below + 1, false),
                Position::Above => (above, on_below) = (above + 1, false),
                Position::Across => across += 1,
            }
            if on_below && below_open {
                with_below += 1;
                below_open = !rule.volume.covers(&low);
            }
            if on_above && above_open {
                with_above += 1;
                above_open = !rule.volume.covers(&high);
            }
        }
        let all = rules.len();
        let (largest, larger) = (below.max(above), with_below.max(with_above));
        // One box in sixteen may be doubled where the cut is even: the whole stays linear.
        if larger <= all * 5 / 8 && with_below + with_above <= all + all / 16 + 1 {
            let (copies, cost) = (true, larger);
            return Some(Plan { cut, copies, cost });
        }
        let (copies, cost) = (false, largest + across);
        (largest.max(across) <= all * 7 / 8).then_some(Plan { cut, copies, cost })
    }
}

/// Where boxes begin or have ended, evenly chosen.
fn candidates<A: Coordinate>(region: &Volume<A>, rules: &[Rule<A>], dimension: usize) -> Vec<A> {
    let Some((from, to)) = region.side(dimension) else {
        return Vec::new();
    };
    let sides = rules.iter().filter_map(|rule| rule.volume.side(dimension));
    let mut edges: Vec<A> = sides
        .flat_map(|(low, high)| {
            let begins = (from < low && low <= to).then_some(low);
            let ended = (from <= high && high < to).then(|| high.next());
            [begins, ended]
        })
        .flatten()
        .collect();
    edges.sort_unstable();
    edges.dedup();
    if edges.len() <= CUTS {
        return edges;
    }
    (1..=CUTS)
        .filter_map(|n| edges.get(edges.len() * n / (CUTS + 1)).copied())
        .collect()
}

#[cfg(test)]
mod tests;
