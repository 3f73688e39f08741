//! Longest prefix match in a compressed trie (Asai and Ohara, "Poptrie", SIGCOMM 2015): the first
//! fourteen bits index a table, then each node takes six. A node has 64 places; a bit map says which
//! lead to further nodes, another where in the places a new leaf begins, so that runs of equal leaves
//! are stored once. An IPv4 address is found in four steps at most, a /48 in seven.

/// Bits that the table takes.
const FIRST: u32 = 14;
/// Bits that a node takes.
const STRIDE: u32 = 6;
/// Marks an entry of the table that is a leaf.
const LEAF: u32 = 1 << 31;
/// A leaf without route.
const NONE: u32 = LEAF - 1;

/// A prefix, left-aligned, and the number of its hop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    start: u128,
    bits: u8,
    hop: u32,
}

impl Prefix {
    /// Host bits of the key are ignored.
    pub(super) fn new(key: u128, bits: u8, hop: u32) -> Prefix {
        let start = key & !host(bits);
        Prefix { start, bits, hop }
    }

    fn end(&self) -> u128 {
        self.start | host(self.bits)
    }
}

/// The bits behind a prefix.
fn host(bits: u8) -> u128 {
    u128::MAX.checked_shr(bits.into()).unwrap_or(0)
}

#[derive(Clone, Copy, Default, Debug)]
struct Node {
    /// Places that lead to a node.
    inner: u64,
    /// Places at which another leaf begins.
    leaf: u64,
    /// The first of its nodes and of its leaves.
    nodes: u32,
    leaves: u32,
}

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Trie {
    /// For each value of the first bits a node, or a leaf.
    table: Vec<u32>,
    nodes: Vec<Node>,
    leaves: Vec<u32>,
}

impl Trie {
    /// Of these prefixes; of two that are the same the first counts.
    pub(super) fn new(prefixes: Vec<Prefix>) -> Trie {
        let mut trie = Trie::default();
        if prefixes.is_empty() {
            return trie;
        }
        let spans = flatten(prefixes);
        let mut spans = spans.as_slice();
        for place in 0..1u128 << FIRST {
            let base = place << (128 - FIRST);
            spans = from(spans, base);
            let entry = match uniform(spans, base, FIRST) {
                Some(hop) => LEAF | hop,
                None => {
                    let node = trie.nodes.len();
                    trie.nodes.push(Node::default());
                    trie.fill(node, spans, base, FIRST);
                    node as u32
                }
            };
            trie.table.push(entry);
        }
        trie
    }

    /// The hop of the longest prefix that the key begins with, which comes in two halves: the lower
    /// one is a constant for IPv4.
    #[inline]
    pub(super) fn find(&self, high: u64, low: u64) -> Option<u32> {
        let entry = *self.table.get((high >> (64 - FIRST)) as usize)?;
        let hop = if entry & LEAF != 0 {
            entry & !LEAF
        } else {
            self.descend(entry, high << FIRST | low >> (64 - FIRST), low << FIRST)?
        };
        (hop != NONE).then_some(hop)
    }

    /// From a node on; `high` begins with the bits that it takes.
    #[inline]
    fn descend(&self, node: u32, mut high: u64, mut low: u64) -> Option<u32> {
        let mut node = self.nodes.get(node as usize)?;
        loop {
            let place = (high >> (64 - STRIDE)) as u32;
            // All places up to this one.
            let upto = u64::MAX >> (63 - place);
            if node.inner >> place & 1 == 0 {
                let leaf = node.leaves + (node.leaf & upto).count_ones() - 1;
                return self.leaves.get(leaf as usize).copied();
            }
            let next = node.nodes + (node.inner & upto).count_ones() - 1;
            node = self.nodes.get(next as usize)?;
            high = high << STRIDE | low >> (64 - STRIDE);
            low <<= STRIDE;
        }
    }

    /// Makes a node of the region that begins at `base` and shares its first `bits` bits.
    fn fill(&mut self, at: usize, spans: &[Span], base: u128, bits: u32) {
        let mut node = Node {
            nodes: self.nodes.len() as u32,
            leaves: self.leaves.len() as u32,
            ..Node::default()
        };
        let (mut last, mut below) = (None, Vec::new());
        let mut rest = spans;
        for place in 0..64u32 {
            let base = base | u128::from(place) << (128 - bits - STRIDE);
            rest = from(rest, base);
            match uniform(rest, base, bits + STRIDE) {
                Some(hop) => {
                    if last != Some(hop) {
                        node.leaf |= 1 << place;
                        self.leaves.push(hop);
                    }
                    last = Some(hop);
                }
                None => {
                    node.inner |= 1 << place;
                    below.push((rest, base));
                }
            }
        }
        // Its nodes lie side by side: room for all, then each.
        self.nodes
            .resize(self.nodes.len() + below.len(), Node::default());
        let first = node.nodes as usize;
        if let Some(place) = self.nodes.get_mut(at) {
            *place = node;
        }
        for (at, (spans, base)) in (first..).zip(below) {
            self.fill(at, spans, base, bits + STRIDE);
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.table) + size_of_val(&*self.nodes) + size_of_val(&*self.leaves)
    }
}

/// From here to the next one, every key has this hop.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u128,
    hop: u32,
}

/// The spans from the one that holds `base` on.
fn from(spans: &[Span], base: u128) -> &[Span] {
    // Callers move on in order: what they skip is short.
    let mut rest = spans;
    while let [_, next, ..] = rest
        && next.start <= base
    {
        rest = rest.get(1..).unwrap_or_default();
    }
    rest
}

/// The hop of a region, if it is one for all of it; `spans` begins with the one that holds its base.
fn uniform(spans: &[Span], base: u128, bits: u32) -> Option<u32> {
    let end = base | u128::MAX.checked_shr(bits).unwrap_or(0);
    match spans {
        [span, next, ..] => (next.start > end).then_some(span.hop),
        [span] => Some(span.hop),
        [] => Some(NONE),
    }
}

/// Prefixes that nest, as spans side by side in which the longest has won.
fn flatten(mut prefixes: Vec<Prefix>) -> Vec<Span> {
    // Stable, so that of two that are the same the first stays first; shorter ones come before those
    // that they hold.
    prefixes.sort_by_key(|prefix| (prefix.start, prefix.bits));
    prefixes.dedup_by_key(|prefix| (prefix.start, prefix.bits));
    let mut spans = vec![Span {
        start: 0,
        hop: NONE,
    }];
    let mut open: Vec<Prefix> = Vec::new();
    let mut begin = |start, hop| match spans.last_mut() {
        Some(last) if last.start == start => last.hop = hop,
        Some(last) if last.hop == hop => {}
        _ => spans.push(Span { start, hop }),
    };
    let close = |open: &mut Vec<Prefix>, until: Option<u128>, begin: &mut dyn FnMut(u128, u32)| {
        while let Some(last) = open.pop_if(|last| until.is_none_or(|start| last.end() < start)) {
            let around = open.last().map_or(NONE, |prefix| prefix.hop);
            if let Some(after) = last.end().checked_add(1) {
                begin(after, around);
            }
        }
    };
    for prefix in prefixes {
        close(&mut open, Some(prefix.start), &mut begin);
        begin(prefix.start, prefix.hop);
        open.push(prefix);
    }
    close(&mut open, None, &mut begin);
    spans
}
