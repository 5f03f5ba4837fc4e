//! S5: path services and portals.

pub mod cid;
