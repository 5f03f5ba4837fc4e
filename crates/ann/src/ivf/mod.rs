//! Old partitions: an inverted file of k-means lists, whose rows are found by short codes.
//!
//! This folder's mathematics: [`kmeans`] makes the centroids, [`assign`] puts each row in two lists, [`rotate`] and
//! [`bits`] make the codes and the estimates of distances from them.

pub mod assign;
pub mod bits;
pub mod kmeans;
pub mod rotate;
