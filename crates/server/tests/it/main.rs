//! The server over fakes of the queue and of what stands behind it, through real sockets.

mod access;
mod client;
mod dispatching;
mod hooks;
mod hostile;
mod ordering;
mod page;
mod running;
mod stage;
mod watching;
