//! Public bodies: requests, replies, errors and event JSON.
