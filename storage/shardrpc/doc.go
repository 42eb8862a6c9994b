// Package shardrpc carries shards and heads between peers: the gRPC service
// that answers from a local store, and the client that is a store at another
// peer. Both sides speak the small interfaces of package storage, so whoever
// uses a Client cannot tell it from a disk except by its errors, and those are
// the same values too.
//
// Bytes of shards are passed in frames of at most 256 KiB that are never
// copied between the store and the connection (see Codec). Every transfer has
// an idle limit instead of a total one: it may take as long as bytes keep
// coming, and fails when they do not.
package shardrpc
