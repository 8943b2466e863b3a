//! The search for the next FIX message in a segment.

use core::ops::ControlFlow;

use aya_ebpf::{macros::map, maps::PerCpuArray};
use breaker_common::blind::first_signature;
use breaker_common::fix::SIGNATURE;

use crate::context::{Access, Context};
use crate::payload::bounded;

/// Words of payload in one step of the search.
const BLOCK: usize = 32;
const BLOCK_BYTES: u32 = (BLOCK * 8) as u32;
/// Bytes from block to block. A block's last word only completes matches that begin in the word before.
const STRIDE: u32 = BLOCK_BYTES - 8;
/// Blocks of one search: 254 KB, more than a segment has without BIG TCP. In a BIG TCP segment (512 KB) the
/// search stops there.
const MAX_BLOCKS: u32 = 1024;

#[map]
static BLOCKS: PerCpuArray<[u64; BLOCK]> = PerCpuArray::with_max_entries(1, 0);

/// Returns the packet offset of the first `8=FIX` in `from..to`; `to` if there is none. A global function.
#[inline(always)]
pub fn find(context: impl Context, from: u32, to: u32) -> u32 {
    let mut at = from;
    let mut block = 0;
    while block < MAX_BLOCKS && at < to {
        match context.find_in_block(at, to) {
            ControlFlow::Break(found) => return found,
            ControlFlow::Continue(next) => at = next,
        }
        block += 1;
    }
    to
}

/// [`find`] in the first block. A global function.
#[inline(always)]
pub fn find_in_block(context: impl Access, from: u32, to: u32) -> ControlFlow<u32, u32> {
    let Some(words) = BLOCKS.get_ptr_mut(0) else { return ControlFlow::Continue(to) };
    let left = to.wrapping_sub(from);
    let length = bounded(if left < BLOCK_BYTES { left } else { BLOCK_BYTES }, BLOCK_BYTES);
    // SAFETY: this CPU's own value, of BLOCK_BYTES.
    if !unsafe { context.load(from, words.cast(), length) } {
        return ControlFlow::Continue(to);
    }
    let mut i = 0;
    while i < BLOCK - 1 {
        // SAFETY: inside the value.
        let (word, next) = unsafe { ((*words)[i], (*words)[i + 1]) };
        let found = first_signature(word, next);
        if found != 8 {
            let at = from + i as u32 * 8 + found;
            // Behind the segment's bytes the block holds bytes of an earlier search.
            return if at + SIGNATURE.len() as u32 <= to {
                ControlFlow::Break(at)
            } else {
                ControlFlow::Continue(to)
            };
        }
        i += 1;
    }
    ControlFlow::Continue(from + STRIDE)
}
