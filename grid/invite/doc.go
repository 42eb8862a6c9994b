// Package invite lets a stranger become a member: by a pasteable code that is
// good for one peer, or by showing statements that make it a member already.
//
// An invite is known to two peers only: the one that made it keeps it in its
// Book, the joiner has the Code. Both meet on a join connection, which proves
// the keys of both ends. The joiner proves that it has the secret by an HMAC
// over keying material of that very TLS session, so a proof is worth nothing
// elsewhere. The inviting peer then, in this order, checks the papers, marks
// the invite as used on disk, signs the admission into the roster, and hands
// the roster over. A crash in between costs nothing: the same joiner may come
// again with the same code, and nobody else may.
//
// Frames are 4 bytes length, big-endian, and one message of proto/invite/v1.
// The dialling side sends one request, the other side one response, then, when
// it is a yes that carries the roster, batches until the last.
package invite
