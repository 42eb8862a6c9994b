// Package identity holds the keys of a peer and of its owner: the node key
// that never leaves the machine, the owner key that is derived from a recovery
// phrase and never stored, the delegation by which the owner lets the peer act,
// signed bytes in general, and the TLS configuration in which a peer's
// certificate is nothing but its key.
package identity
