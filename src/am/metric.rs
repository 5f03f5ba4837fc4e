//! Support functions of the operator classes: each tells its metric.

use ann::distance::Metric;
use pgrx::pg_extern;

#[pg_extern(sql = false)]
fn hybrid_metric_l2() -> i32 {
    Metric::L2 as i32
}

#[pg_extern(sql = false)]
fn hybrid_metric_ip() -> i32 {
    Metric::InnerProduct as i32
}

#[pg_extern(sql = false)]
fn hybrid_metric_cosine() -> i32 {
    Metric::Cosine as i32
}

#[pg_extern(sql = false)]
fn hybrid_metric_l1() -> i32 {
    Metric::L1 as i32
}
