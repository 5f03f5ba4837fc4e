//! Walrus without a network: blob ids, quilts, sizes and prices.
