//! What there is of both passes.

/// One for encode passes, one for decode passes.
#[derive(Clone, Copy, Debug)]
pub struct PerPass<T> {
    /// The encode passes'.
    pub encode: T,
    /// The decode passes'.
    pub decode: T,
}
