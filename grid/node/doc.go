// Package node is one whole peer: it makes the home of a new peer, wires the
// layers of a running one together, starts and stops them in order, and serves
// the control API to the commands of the machine's user.
package node
