//! A set of ticket numbers that knows how many of its members are below a number.

/// Tickets a word.
const WORD: u64 = 64;
/// Words a block; the tree counts blocks.
const BLOCK: usize = 8;
/// Tickets a block.
const BLOCK_TICKETS: i64 = 512;

/// A set of tickets above a floor that only rises: one bit a ticket, from the floor to the highest member, and a Fenwick
/// tree (Fenwick 1994) over blocks of 512 of them. Adding and counting take O(log n).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TicketSet {
    /// The ticket of the first bit; a multiple of a block.
    base: i64,
    /// A bit a ticket. Whole blocks.
    words: Vec<u64>,
    /// Entry i sums up the blocks from `i & (i + 1)` to i.
    tree: Vec<u32>,
}

impl TicketSet {
    /// Adds a ticket; nothing happens when it is there, or below the base.
    pub(super) fn insert(&mut self, ticket: i64) {
        let Some((word, bit)) = self.place(ticket) else { return };
        if word >= self.words.len() {
            let blocks = word / BLOCK + 1;
            self.words.resize(blocks * BLOCK, 0);
            self.grow_tree(blocks);
        }
        let Some(stored) = self.words.get_mut(word) else { return };
        if *stored & bit == 0 {
            *stored |= bit;
            let mut block = word / BLOCK;
            while let Some(sum) = self.tree.get_mut(block) {
                *sum += 1;
                block |= block + 1;
            }
        }
    }

    pub(super) fn contains(&self, ticket: i64) -> bool {
        let word = self.place(ticket).and_then(|(word, bit)| Some(self.words.get(word)? & bit));
        word.is_some_and(|bit| bit != 0)
    }

    /// How many members are below this ticket, from the base on.
    pub(super) fn count_below(&self, ticket: i64) -> u64 {
        let Some((word, bit)) = self.place(ticket) else { return 0 };
        if word >= self.words.len() {
            return self.blocks_before(self.tree.len());
        }
        let block = word / BLOCK;
        let whole = self.words.get(block * BLOCK..word).unwrap_or_default();
        let partial = self.words.get(word).map_or(0, |stored| stored & (bit - 1));
        let within = whole.iter().map(|stored| stored.count_ones()).sum::<u32>() + partial.count_ones();
        self.blocks_before(block) + u64::from(within)
    }

    /// Lets go of blocks that end below this ticket, when they are at least half of all: the cost of moving the others is
    /// then paid for by the tickets that have passed. What is counted from the base on changes with that.
    pub(super) fn forget_below(&mut self, ticket: i64) {
        let passed = usize::try_from((ticket - self.base) / BLOCK_TICKETS).unwrap_or(0);
        let blocks = self.words.len() / BLOCK;
        if passed == 0 || passed * 2 < blocks {
            return;
        }
        self.base = ticket - ticket.rem_euclid(BLOCK_TICKETS);
        self.words.drain(..(passed * BLOCK).min(self.words.len()));
        self.words.shrink_to_fit();
        self.tree = Vec::new();
        self.grow_tree(blocks.saturating_sub(passed));
    }

    /// Adds entries for blocks that are there already.
    fn grow_tree(&mut self, blocks: usize) {
        for block in self.tree.len()..blocks {
            let own = self.words.get(block * BLOCK..(block + 1) * BLOCK).unwrap_or_default();
            let own: u32 = own.iter().map(|stored| stored.count_ones()).sum();
            let from = block & (block + 1);
            let before = self.blocks_before(block) - self.blocks_before(from);
            self.tree.push(own + u32::try_from(before).unwrap_or(u32::MAX));
        }
    }

    /// How many members are in the first so many blocks.
    fn blocks_before(&self, blocks: usize) -> u64 {
        let (mut end, mut sum) = (blocks, 0);
        while let Some(entry) = end.checked_sub(1) {
            sum += u64::from(self.tree.get(entry).copied().unwrap_or(0));
            end &= entry;
        }
        sum
    }

    /// The word of a ticket and its bit in it; `None` below the base.
    fn place(&self, ticket: i64) -> Option<(usize, u64)> {
        let offset = u64::try_from(ticket.checked_sub(self.base)?).ok()?;
        Some((usize::try_from(offset / WORD).ok()?, 1 << (offset % WORD)))
    }

    /// The bytes it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * 8 + self.tree.capacity() * 4
    }
}
