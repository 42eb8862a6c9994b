// Package segments puts segments on other peers and gets them back.
//
// Put encodes a segment into n shards and streams them to n holders at once.
// It is over when every shard is durable, or when enough are (the commit rule)
// and the rest took much longer than those that are done. Holders that refuse,
// fail or stand still are replaced by the next in the ranking, a bounded number
// of times.
//
// Get reads k shards from the holders that are expected to answer first, starts
// others when some are slow, and verifies every shard against its root before
// it decodes: a holder that lies is noted and another one is read.
//
// No call waits for one peer: every wait is bounded by progress, never by the
// size of what is moved, so slow lines work and dead ones do not hold anything
// up.
package segments
