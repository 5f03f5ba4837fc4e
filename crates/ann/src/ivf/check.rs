//! Whether the lists of an IVF segment are sound.
