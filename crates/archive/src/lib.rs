//! What an archive is made of: objects that hold the structure of segments, and manifests that name them.

pub mod table;
