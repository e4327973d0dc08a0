//! Hopper's own instructions, as PTX: products of a warpgroup (`wgmma`), the copy engine, and the barriers between the
//! two.
//!
//! They exist on compute capability 9.0 alone (`sm_90a`). A warpgroup is four planes whose first is a multiple of four;
//! what is said here of "a warpgroup" is done by all of its 128 units together.
//!
//! Both operands of a product, or the right one alone, come from shared memory, in tiles of rows of 128 bytes whose
//! 16-byte parts have changed places: part `p` of row `r` lies at `p ^ (r % 8)`. The copy engine stores them so. Tiles
//! begin at multiples of 1024 bytes.

use burn_cubecl::tensor::CubeTensor;
use cubecl::{
    features::Tma,
    prelude::*,
    zspace::{shape, strides},
};
use cubecl_cpp::cuda::ptx::tensor_map_address;

use super::ptx::{Words4, value};
use crate::numbers::Format;

/// Units of a warpgroup.
pub const WARPGROUP: u32 = 128;
/// Bytes of a row of a tile in shared memory.
pub const ROW_BYTES: u32 = 128;
/// What tensor maps count in, whatever the numbers are.
pub type Word = u16;
/// Words of a row of a tile.
pub const ROW_WORDS: usize = 64;

/// A device that has these instructions.
#[derive(Clone, Copy, Debug)]
pub struct Hopper {
    /// Bytes of shared memory that a cube may have.
    pub shared_bytes: usize,
    pub processors: usize,
}

impl Hopper {
    /// The device of a tensor, if it is one.
    pub fn of(tensor: &CubeTensor) -> Option<Self> {
        let properties = tensor.client.properties();
        // Later devices have no `wgmma`. The copy engine is not there where kernels are compiled by LLVM.
        let hopper = properties.identity.fingerprint == "ptx_sm90" && properties.features.tma.contains(Tma::Base);
        hopper.then(|| Self {
            shared_bytes: properties.hardware.max_shared_memory_size,
            processors: properties.hardware.num_streaming_multiprocessors.unwrap_or(1) as usize,
        })
    }
}

/// A matrix of rows of 16-byte parts, from and to which tiles of `tile_rows` rows of 128 bytes are copied.
pub fn tiles(matrix: &CubeTensor, rows: usize, row_parts: usize, tile_rows: usize) -> TensorMapArg<Tiled> {
    let words = row_parts * 8;
    // SAFETY: the callers' matrices have `rows` rows of `words` words.
    let tensor = unsafe { TensorArg::from_raw_parts(matrix.handle.clone(), strides![words, 1], shape![rows, words]) };
    let tile = TiledArgs { tile_size: shape![tile_rows, ROW_WORDS] };
    TensorMapArg::new(tile, tensor, Word::elem_type_native())
        .with_swizzle(TensorMapSwizzle::B128)
        .with_prefetch(TensorMapPrefetch::B256)
}

/// The instruction for operands of this format and a result of `columns` columns.
fn instruction(operand: Format, columns: u32) -> String {
    let depth = 256 / operand.bits();
    let ty = operand.ptx();
    format!("wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.f32.{ty}.{ty}")
}

/// Where an operand's part for each step of a product lies, in units of 16 bytes from its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    /// From step to step within a tile.
    pub step: u32,
    /// Steps within a tile.
    pub steps: u32,
    /// From tile to tile.
    pub tile: u32,
}

impl Walk {
    /// Along rows of 128 bytes, 32 bytes a step, over tiles that lie `tile_bytes` apart.
    pub const fn along_rows(tile_bytes: u32) -> Self {
        Self { step: 2, steps: 4, tile: tile_bytes / 16 }
    }

    /// Across rows of 128 bytes, 16 rows a step.
    pub const fn across_rows() -> Self {
        Self { step: ROW_BYTES, steps: u32::MAX, tile: 0 }
    }

    const fn at(self, step: u32) -> u32 {
        step / self.steps * self.tile + step % self.steps * self.step
    }
}

/// A sequence of instructions that add to the same sums of 64 rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// The format of both operands.
    pub operand: Format,
    /// Columns of the result.
    pub columns: u32,
    /// Instructions.
    pub steps: u32,
    pub left: Walk,
    pub right: Walk,
    /// As `right_across`, of the left operand: whether its rows run along the rows of the result.
    pub left_across: Option<u32>,
    /// Where the right operand's rows run along its columns, not along the depth: how many bytes apart its tiles of 64
    /// columns lie.
    pub right_across: Option<u32>,
}

impl Product {
    fn registers(self) -> u32 {
        self.columns / 2
    }

    /// The instructions with both operands in shared memory. `$0` are the sums, `left` and `right` the registers that
    /// hold the lower words of the descriptors.
    fn with_shared(self, left: &str, right: &str, from_zero: bool) -> String {
        let name = instruction(self.operand, self.columns);
        let transposed = match self.operand {
            Format::E4m3 => String::new(),
            _ => format!(", {}, {}", u32::from(self.left_across.is_some()), u32::from(self.right_across.is_some())),
        };
        (0..self.steps)
            .map(|step| {
                let keep = u32::from(step > 0 || !from_zero);
                let left = place("ta", left, self.left.at(step), self.left_across);
                let right = place("tb", right, self.right.at(step), self.right_across);
                format!("{left}\n{right}\n{name} $0, ta, tb, {keep}, 1, 1{transposed};")
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The instructions with the left operand in registers, four a step, which follow the sums that go in.
    fn with_registers(self) -> String {
        let name = instruction(self.operand, self.columns);
        let transposed = u32::from(self.right_across.is_some());
        (0..self.steps)
            .map(|step| {
                let right = place("tb", "$3", self.right.at(step), self.right_across);
                let first = 2 * self.registers() + 4 * step;
                let left = (first..first + 4).map(|register| format!("%{register}")).collect::<Vec<_>>().join(", ");
                format!("{right}\n{name} $0, {{{left}}}, tb, 1, 1, 1, {transposed};")
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Copies the sums that go in to those that come out.
    fn carry(self) -> String {
        (0..self.registers())
            .map(|i| format!("mov.f32 %{i}, %{};", self.registers() + i))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The PTX that puts an operand's descriptor into the register `to`: its lower word `low`, see [`descriptor`], advanced
/// by `units` units of 16 bytes.
///
/// Groups of eight rows lie 1024 bytes apart; `across` is the distance in bytes between tiles side by side, which count
/// where rows run across the depth. PTX manual, "Matrix Descriptor Format".
fn place(to: &str, low: &str, units: u32, across: Option<u32>) -> String {
    let tiles = (across.unwrap_or(0) / 16) << 16;
    let high = (1024u32 / 16) | (1 << 30);
    let units = units + tiles;
    format!("add.u32 low, {low}, {units}; mov.b64 {to}, {{low, {high}}};")
}

/// The lower word of the descriptor of a tile in shared memory.
#[cube]
pub fn descriptor(address: u32) -> u32 {
    (address & 0x3_ffffu32) >> 4u32
}

/// A product of 64 rows, both operands in shared memory, summed from zero; waits for it.
///
/// A unit's sums, where it is lane `4 g + t` of plane `p` of its warpgroup: those of row `16 p + g` at the columns `8 j
/// + 2 t` and one further are `4 j` and `4 j + 1`, those of the row 8 below `4 j + 2` and `4 j + 3`.
#[cube]
pub fn multiply<R: Size>(left: u32, right: u32, #[comptime] product: Product) -> Vector<f32, R> {
    let body = comptime!(product.with_shared("$1", "$2", true));
    let d: Vector<f32, R>;
    gpu_asm!(
        "{{ .reg .b64 ta, tb; .reg .b32 low;",
        "wgmma.fence.sync.aligned;",
        "{body}",
        "wgmma.commit_group.sync.aligned;",
        "wgmma.wait_group.sync.aligned 0;",
        "/* {d} {left} {right} */ }}",
        d = out(_) d,
        left = in(_) value::<u32>(left),
        right = in(_) value::<u32>(right),
    );
    d
}

/// [`multiply`], added to `sums`.
#[cube]
pub fn multiply_add<R: Size>(
    sums: Vector<f32, R>,
    left: u32,
    right: u32,
    #[comptime] product: Product,
) -> Vector<f32, R> {
    let carry = comptime!(product.carry());
    let body = comptime!(product.with_shared("$2", "$3", false));
    let d: Vector<f32, R>;
    gpu_asm!(
        "{{ .reg .b64 ta, tb; .reg .b32 low;",
        "{carry}",
        "wgmma.fence.sync.aligned;",
        "{body}",
        "wgmma.commit_group.sync.aligned;",
        "wgmma.wait_group.sync.aligned 0;",
        "/* {d} {sums} {left} {right} */ }}",
        d = out(_) d,
        sums = in(_) value::<Vector<f32, R>>(sums),
        left = in(_) value::<u32>(left),
        right = in(_) value::<u32>(right),
    );
    d
}

/// Starts [`multiply_add`] with the left operand in registers, four a step in the order of
/// [`ptx::multiply_add`](super::ptx::multiply_add). The sums are not complete yet: pass the result only to
/// [`finish()`].
#[cube]
pub fn begin_multiply_add_registers<R: Size, A: Size>(
    sums: Vector<f32, R>,
    left: Vector<u32, A>,
    right: u32,
    #[comptime] product: Product,
) -> Vector<f32, R> {
    let carry = comptime!(product.carry());
    let body = comptime!(product.with_registers());
    let d: Vector<f32, R>;
    gpu_asm!(
        "{{ .reg .b64 tb; .reg .b32 low;",
        "{carry}",
        "wgmma.fence.sync.aligned;",
        "{body}",
        "wgmma.commit_group.sync.aligned;",
        "/* {d} {sums} {left} {right} */ }}",
        d = out(_) d,
        sums = in(_) value::<Vector<f32, R>>(sums),
        left = in(_) value::<Vector<u32, A>>(left),
        right = in(_) value::<u32>(right),
    );
    d
}

/// Waits for the products of this warpgroup, and returns the sums that [`begin_multiply_add_registers`] started. `left`
/// is its left operand: passing it here keeps its registers from being reused before they have been read.
#[cube]
pub fn finish<R: Size, A: Size>(
    sums: Vector<f32, R>,
    left: Vector<u32, A>,
    #[comptime] product: Product,
) -> Vector<f32, R> {
    let carry = comptime!(product.carry());
    let d: Vector<f32, R>;
    gpu_asm!(
        "{{ wgmma.wait_group.sync.aligned 0;",
        "{carry}",
        "/* {d} {sums} {left} */ }}",
        d = out(_) d,
        sums = in(_) value::<Vector<f32, R>>(sums),
        left = in(_) value::<Vector<u32, A>>(left),
    );
    d
}

/// [`begin_multiply_add_registers`] and [`finish()`] in one statement: between two, the compiler may hold the sums in
/// two sets of registers.
#[cube]
pub fn multiply_add_registers<R: Size, A: Size>(
    sums: Vector<f32, R>,
    left: Vector<u32, A>,
    right: u32,
    #[comptime] product: Product,
) -> Vector<f32, R> {
    let carry = comptime!(product.carry());
    let body = comptime!(product.with_registers());
    let d: Vector<f32, R>;
    gpu_asm!(
        "{{ .reg .b64 tb; .reg .b32 low;",
        "{carry}",
        "wgmma.fence.sync.aligned;",
        "{body}",
        "wgmma.commit_group.sync.aligned;",
        "wgmma.wait_group.sync.aligned 0;",
        "/* {d} {sums} {left} {right} */ }}",
        d = out(_) d,
        sums = in(_) value::<Vector<f32, R>>(sums),
        left = in(_) value::<Vector<u32, A>>(left),
        right = in(_) value::<u32>(right),
    );
    d
}

/// Makes a barrier that `arrivals` complete.
#[cube]
pub fn barrier_init(barrier: u32, #[comptime] arrivals: u32) {
    gpu_asm!("mbarrier.init.shared::cta.b64 [{barrier}], {arrivals};", barrier = in(_) value::<u32>(barrier));
}

/// Makes barriers that one unit has made known to the copy engine; all units synchronise after it.
#[cube]
pub fn publish_barriers() {
    gpu_asm!("fence.mbarrier_init.release.cluster;", "fence.proxy.async;");
}

/// Arrives at a barrier, whose phase ends once `bytes` more bytes have been copied.
#[cube]
pub fn barrier_expect(barrier: u32, bytes: u32) {
    gpu_asm!(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{barrier}], {bytes};",
        barrier = in(_) value::<u32>(barrier),
        bytes = in(_) value::<u32>(bytes),
    );
}

#[cube]
pub fn barrier_arrive(barrier: u32) {
    gpu_asm!("mbarrier.arrive.shared::cta.b64 _, [{barrier}];", barrier = in(_) value::<u32>(barrier));
}

/// Waits for the end of the barrier's phase of this parity. That before the first counts as ended, with parity 1.
#[cube]
pub fn barrier_wait(barrier: u32, parity: u32) {
    gpu_asm!(
        "{{ .reg .pred p;",
        "W: mbarrier.try_wait.parity.shared::cta.b64 p, [{barrier}], {parity};",
        "@p bra D;",
        "bra W;",
        "D: }}",
        barrier = in(_) value::<u32>(barrier),
        parity = in(_) value::<u32>(parity),
    );
}

/// Begins to copy the tile whose first word is `column`, `row` of the map; the barrier counts its bytes. What lies
/// outside of the map comes as zeros.
#[cube]
pub fn copy_tile(to: u32, map: &TensorMap<Word, Tiled>, column: u32, row: u32, barrier: u32) {
    let address = tensor_map_address::<Word, Tiled>(map);
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [{to}], [{map}, {{{column}, {row}}}], [{barrier}];",
        map = in(_) value::<u64>(address),
        to = in(_) value::<u32>(to),
        column = in(_) value::<u32>(column),
        row = in(_) value::<u32>(row),
        barrier = in(_) value::<u32>(barrier),
    );
}

/// Begins to copy a tile of shared memory to `column`, `row` of the map; what lies outside of it is left out.
#[cube]
pub fn store_tile(map: &TensorMap<Word, Tiled>, from: u32, column: u32, row: u32) {
    let address = tensor_map_address::<Word, Tiled>(map);
    gpu_asm!(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [{map}, {{{column}, {row}}}], [{from}];",
        map = in(_) value::<u64>(address),
        from = in(_) value::<u32>(from),
        column = in(_) value::<u32>(column),
        row = in(_) value::<u32>(row),
    );
}

/// Ends a group of [`store_tile`].
#[cube]
pub fn end_stores() {
    gpu_asm!("cp.async.bulk.commit_group;");
}

/// Waits until the shared memory of this unit's stores may be written again.
#[cube]
pub fn wait_for_stores_to_read() {
    gpu_asm!("cp.async.bulk.wait_group.read 0;");
}

/// Waits for the end of this unit's stores.
#[cube]
pub fn wait_for_stores() {
    gpu_asm!("cp.async.bulk.wait_group 0;");
}

/// Makes what this unit has written to shared memory known to the copy engine.
#[cube]
pub fn fence_async() {
    gpu_asm!("fence.proxy.async;");
}

#[cube]
pub fn store_shared_u32(address: u32, word: u32) {
    gpu_asm!(
        "st.shared.b32 [{address}], {word};",
        address = in(_) value::<u32>(address),
        word = in(_) value::<u32>(word),
    );
}

/// Waits for all units of a warpgroup.
#[cube]
pub fn sync_warpgroup(warpgroup: u32) {
    let barrier = warpgroup + 1u32;
    gpu_asm!("bar.sync {barrier}, 128;", barrier = in(_) value::<u32>(barrier));
}

/// Raises the limit of registers of this warpgroup's units to `registers`, from what others have given back.
#[cube]
pub fn take_registers(#[comptime] registers: u32) {
    gpu_asm!("setmaxnreg.inc.sync.aligned.u32 {registers};");
}

/// Lowers the limit of registers of this warpgroup's units to `registers`.
#[cube]
pub fn give_back_registers(#[comptime] registers: u32) {
    gpu_asm!("setmaxnreg.dec.sync.aligned.u32 {registers};");
}

/// Stores the lower 16 bits of a word, `at` bytes into the buffer.
#[cube]
pub fn store_16(to: &mut [Words4], at: u64, word: u32) {
    let pointer = unsafe { to.as_ptr_unchecked() };
    gpu_asm!(
        "{{ .reg .b64 a; .reg .b16 l, h; add.s64 a, {pointer}, {at}; mov.b32 {{l, h}}, {word}; st.global.b16 [a], l; }}",
        pointer = in(_) pointer,
        at = in(_) value::<u64>(at),
        word = in(_) value::<u32>(word),
    );
}

#[cube]
pub fn store_shared_f32(address: u32, number: f32) {
    gpu_asm!(
        "st.shared.f32 [{address}], {number};",
        address = in(_) value::<u32>(address),
        number = in(_) value::<f32>(number),
    );
}

#[cube]
pub fn load_shared_f32(address: u32) -> f32 {
    let d: f32;
    gpu_asm!("ld.shared.f32 {d}, [{address}];", d = out(_) d, address = in(_) value::<u32>(address));
    d
}
