// Package rosterv1 is the signed statements of the roster and the records of peers.
package rosterv1
