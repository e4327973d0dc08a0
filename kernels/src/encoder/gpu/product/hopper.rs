use super::{Epilogue, Layout, Operands};
pub fn product(_layout: Layout, _operands: &Operands, _epilogue: Epilogue) -> bool {
    false
}
