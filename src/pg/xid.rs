//! Transaction ids: who may still need pages that nothing points to any more.

use super::relation::{Index, needs_wal};
use pgrx::pg_sys;

/// The next transaction id, with its epoch.
pub fn next() -> u64 {
    // SAFETY: reads shared memory under its lock.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// Whether every snapshot that saw `xid` as not begun, or as running, is gone.
///
/// `table`: the table whose transactions count; without one, those of all databases.
pub fn is_removable(table: Option<pg_sys::Relation>, xid: u64) -> bool {
    // A relation of this session alone has a horizon that leaves out the session's own cursors.
    // SAFETY: `table` is open (`IndexStore::with_table`), and null is allowed.
    unsafe {
        let shared = table.filter(|&t| !(*t).rd_islocaltemp && (*t).rd_createSubid == 0);
        let table = shared.unwrap_or(std::ptr::null_mut());
        pg_sys::GlobalVisCheckRemovableFullXid(table, pg_sys::FullTransactionId { value: xid })
    }
}

/// `xl_btree_reuse_page`. A record about no page: its replay on a standby ends, or waits for, the queries of the
/// database that may still need what `horizon` made unreachable, and does nothing else. So no resource manager of our
/// own is needed, which only a preloaded library could bring.
#[repr(C)]
struct ReusePage {
    #[cfg(feature = "pg15")]
    locator: pg_sys::RelFileNode,
    #[cfg(not(feature = "pg15"))]
    locator: pg_sys::RelFileLocator,
    block: pg_sys::BlockNumber,
    horizon: pg_sys::FullTransactionId,
    /// Whether logical decoding on the standby needs the relation.
    #[cfg(not(feature = "pg15"))]
    is_catalog: bool,
}

/// `XLOG_BTREE_REUSE_PAGE`.
const REUSE_PAGE: u8 = 0xD0;

const _: () = assert!(std::mem::offset_of!(ReusePage, block) == 12);
const _: () = assert!(std::mem::offset_of!(ReusePage, horizon) == 16);
#[cfg(feature = "pg15")]
const RECORD_SIZE: usize = 24;
#[cfg(not(feature = "pg15"))]
const RECORD_SIZE: usize = 25;

/// Tells standbys that pages which were reachable before `xid` was the next are about to be used again.
pub fn log_reuse(index: Index, xid: u64) {
    // SAFETY: the relation is open; settings are read by the main thread.
    let standbys = unsafe { pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32 };
    // SAFETY: the relation is open.
    if !standbys || !unsafe { needs_wal(index.as_ptr()) } {
        return;
    }
    let mut record = ReusePage {
        locator: index.locator(),
        block: pg_sys::InvalidBlockNumber,
        horizon: pg_sys::FullTransactionId { value: xid },
        #[cfg(not(feature = "pg15"))]
        is_catalog: false,
    };
    // SAFETY: the record is as the btree resource manager of this version reads it; it lives until it is inserted.
    unsafe {
        pg_sys::XLogBeginInsert();
        pg_sys::XLogRegisterData((&raw mut record).cast(), RECORD_SIZE as _);
        pg_sys::XLogInsert(pg_sys::RmgrIds::RM_BTREE_ID as u8, REUSE_PAGE);
    }
}
