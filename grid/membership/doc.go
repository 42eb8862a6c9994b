// Package membership knows who is there. It runs Serf over the authenticated
// sessions of grid/peernet, spreads the roster and the signed address records
// between members, and joins three sources into one list: the roster says who
// belongs, a peer's own signed record says what it offers and where it is, and
// gossip has an opinion on who is there now.
//
// New makes a Membership, Run is a member until its context ends, Peers is the
// list and Watch says when to look again. Directory is what the network below
// dials by.
//
// A peer that gossip calls away is still a member, for weeks if need be:
// nothing that destroys anything may hang on that opinion. No peer is special:
// after a restart a peer tries the members that it knew, at random.
//
// Only this package imports serf, memberlist and mdns.
package membership
