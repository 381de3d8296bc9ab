//! The ledger as its users see it, on real files.

mod contract;
mod database;
mod fixture;
mod history;
mod integrity;
mod leases;
mod orders;
mod shared;
mod storage;
mod support;
