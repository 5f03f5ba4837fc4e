//! Old partitions: an inverted file of k-means lists, whose rows are found by short codes.
//!
//! This folder's mathematics: [`kmeans`] makes the centroids, [`assign`] puts each row in two lists, [`rotate`] and
//! [`bits`] make the codes and the estimates of distances from them.
//!
//! Its pages: [`layout`] has the bytes, [`write`] makes a segment, [`lists`] ranks centroids, [`search`] reads postings.

pub mod assign;
pub mod bits;
pub mod check;
pub mod kmeans;
pub mod layout;
pub mod lists;
pub mod rotate;
pub mod search;
pub mod write;
