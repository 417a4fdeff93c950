//! Every protocol on a socket, over one Service face.
