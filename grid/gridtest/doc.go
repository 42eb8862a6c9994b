// Package gridtest is what tests of the grid stand on. Fabric is a network in
// memory with latency, partitions and firewalls, on which whole peers run inside
// a testing/synctest bubble without sockets.
package gridtest
