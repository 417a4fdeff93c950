//! The HTTP face over a real engine on a real socket.
#![allow(clippy::unwrap_used, missing_docs)]

mod abuse;
mod appends;
mod connections;
mod cors;
mod errors;
mod event_streams;
mod fleet;
mod http;
mod limits;
mod lists;
mod long_polls;
mod node;
mod openapi;
mod ops;
mod order;
mod pages;
mod profile;
mod server;
mod sessions;
mod tails;
mod ways;
mod websocket;
mod websockets;
