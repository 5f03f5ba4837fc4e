//! Entry points for a fuzzer.
