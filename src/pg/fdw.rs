//! Foreign servers of our wrapper, user mappings, and who may do what with them.

use super::encoding::{from_server, to_server};
use crate::error::{Fault, raise};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Name of the extension, to which the wrapper belongs, whatever the wrapper is called.
pub const EXTENSION: &CStr = c"hybridvec";

/// Name and value of each option, in the order in which they were given.
pub type Options = Vec<(String, String)>;

/// What a catalog of the foreign-data kind describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catalog {
    Wrapper,
    Server,
    Mapping,
    /// A foreign table or one of its columns.
    Table,
}

impl Catalog {
    /// `None`: none of them.
    pub fn of(oid: pg_sys::Oid) -> Option<Self> {
        match oid {
            pg_sys::ForeignDataWrapperRelationId => Some(Self::Wrapper),
            pg_sys::ForeignServerRelationId => Some(Self::Server),
            pg_sys::UserMappingRelationId => Some(Self::Mapping),
            pg_sys::ForeignTableRelationId | pg_sys::AttributeRelationId => Some(Self::Table),
            _ => None,
        }
    }
}

/// A foreign server of our wrapper, which the current user may use.
pub struct Server {
    oid: pg_sys::Oid,
    pub name: String,
    pub options: Options,
}

#[cold]
fn no_server(name: &str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("server \"{name}\" does not exist"))
}

impl Server {
    /// Looks a server up.
    ///
    /// # Errors
    /// Raises 42704 if there is none of this name, 42501 without USAGE, 42809 if it is not of our wrapper.
    pub fn find(name: &str) -> Self {
        let c_name = to_server(name).unwrap_or_else(|_| no_server(name));
        // SAFETY: a lookup that may fail; the result is palloc'd, and its options are a list of DefElem.
        let (server, options) = unsafe {
            let server = pg_sys::GetForeignServerByName(c_name.as_ptr(), true);
            let Some(server) = server.as_ref() else { no_server(name) };
            (server, options_of(server.options))
        };
        check_usage(server.serverid, &c_name);
        // SAFETY: lookups by OID.
        let ours = unsafe {
            let extension = pg_sys::getExtensionOfObject(pg_sys::ForeignDataWrapperRelationId, server.fdwid);
            extension != pg_sys::InvalidOid && extension == pg_sys::get_extension_oid(EXTENSION.as_ptr(), true)
        };
        if !ours {
            Fault::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("server \"{name}\" is not a store of archives"),
            )
            .hint("A store is made by CREATE SERVER .. FOREIGN DATA WRAPPER hybrid_store.")
            .raise();
        }
        Self { oid: server.serverid, name: name.to_string(), options }
    }

    /// Options of the current user's mapping, else of PUBLIC's; none if there is neither.
    pub fn mapping(&self) -> Options {
        // SAFETY: lookups by OID; GetUserMapping raises an ERROR only where there is none of both.
        unsafe {
            let user = pg_sys::GetUserId();
            let cache = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
            let exists = |of: pg_sys::Oid| {
                let none = pg_sys::Datum::from(0);
                pg_sys::SearchSysCacheExists(cache, of.into(), self.oid.into(), none, none)
            };
            if !exists(user) && !exists(pg_sys::InvalidOid) {
                return Vec::new();
            }
            options_of((*pg_sys::GetUserMapping(user, self.oid)).options)
        }
    }
}

/// # Safety
/// `list` is null or a list of DefElem whose arguments are strings.
unsafe fn options_of(list: *mut pg_sys::List) -> Options {
    // SAFETY: the caller's promise.
    unsafe {
        let text = |text: *const std::ffi::c_char| from_server(CStr::from_ptr(text));
        let list = PgList::<pg_sys::DefElem>::from_pg(list);
        list.iter_ptr().map(|option| (text((*option).defname), text(pg_sys::defGetString(option)))).collect()
    }
}

fn check_usage(server: pg_sys::Oid, name: &CStr) {
    // SAFETY: a lookup for a server that exists; the second call raises an ERROR.
    unsafe {
        let (user, usage) = (pg_sys::GetUserId(), pg_sys::ACL_USAGE as pg_sys::AclMode);
        #[cfg(feature = "pg15")]
        let result = pg_sys::pg_foreign_server_aclcheck(server, user, usage);
        #[cfg(not(feature = "pg15"))]
        let result = pg_sys::object_aclcheck(pg_sys::ForeignServerRelationId, server, user, usage);
        if result != pg_sys::AclResult::ACLCHECK_OK {
            pg_sys::aclcheck_error(result, pg_sys::ObjectType::OBJECT_FOREIGN_SERVER, name.as_ptr());
        }
    }
}

/// Whether the current user may read files of the server's machine.
pub fn may_read_files() -> bool {
    // SAFETY: a lookup for the current user.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::ROLE_PG_READ_SERVER_FILES.into()) }
}

/// Whether the current user may write files of the server's machine.
pub fn may_write_files() -> bool {
    // SAFETY: a lookup for the current user.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::ROLE_PG_WRITE_SERVER_FILES.into()) }
}

/// The data directory, absolute.
pub fn data_directory() -> PathBuf {
    // SAFETY: set once, when the server starts; a C string.
    let path = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes()))
}

/// Keeps others out of a server of this name until the end of the transaction: whoever uploads shares it, whoever removes
/// what it has does not. A server that is gone is locked by nobody.
pub fn lock_server(name: &str, alone: bool) {
    let Ok(name) = to_server(name) else { return };
    let mode = if alone { pg_sys::ExclusiveLock } else { pg_sys::ShareLock };
    // SAFETY: a lookup by name, and a lock as DROP SERVER takes it, which waits with interrupts served.
    unsafe {
        let server = pg_sys::get_foreign_server_oid(name.as_ptr(), true);
        pg_sys::LockDatabaseObject(pg_sys::ForeignServerRelationId, server, 0, mode as pg_sys::LOCKMODE);
    }
}

/// Lets one session after the other archive these relations in a server of this name, until the end of the transaction: what
/// the first one stored, the next one finds.
pub fn lock_sources(name: &str, relations: &[pg_sys::Oid]) {
    let Ok(name) = to_server(name) else { return };
    let mut relations = relations.to_vec();
    relations.sort_unstable_by_key(|relation| relation.to_u32());
    // SAFETY: a lookup by name, and locks on objects, which wait with interrupts served. Nobody else locks parts of relations
    // as objects. A part is a number of 16 bits: servers that share one wait for each other, no more.
    unsafe {
        let server = pg_sys::get_foreign_server_oid(name.as_ptr(), true);
        for relation in relations {
            let (part, mode) = (server.to_u32() as u16, pg_sys::ExclusiveLock as pg_sys::LOCKMODE);
            pg_sys::LockDatabaseObject(pg_sys::RelationRelationId, relation, part, mode);
        }
    }
}

/// Whether the current user owns a server of this name, or is a superuser.
pub fn owns_server(name: &str) -> bool {
    let Ok(name) = to_server(name) else { return false };
    // SAFETY: lookups by name and by OID.
    unsafe {
        let server = pg_sys::get_foreign_server_oid(name.as_ptr(), true);
        #[cfg(feature = "pg15")]
        let owns = pg_sys::pg_foreign_server_ownercheck(server, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        let owns = pg_sys::object_ownercheck(pg_sys::ForeignServerRelationId, server, pg_sys::GetUserId());
        server != pg_sys::InvalidOid && owns
    }
}

/// Whether the current user owns this database, or is a superuser.
pub fn owns_database() -> bool {
    // SAFETY: a lookup for the database of this session.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(pg_sys::MyDatabaseId, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, pg_sys::MyDatabaseId, pg_sys::GetUserId());
    }
}
