//! Clients that mean harm, each over a real socket: what they hold is limited, they are cut off,
//! and everybody else is served on.

mod floods;
mod heads;
mod slow;
mod sockets;

use crate::server::Server;

/// Whether an honest client is served.
async fn is_served(server: &Server) {
    assert_eq!(server.get("/v1/sessions").await.status, 200);
}
