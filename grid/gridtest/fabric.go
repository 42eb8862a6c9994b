package gridtest

import "gotong/grid/gridtest/memnet"

// Fabric is the network in memory on which a Cluster runs.
type Fabric = memnet.Fabric

// Host is one machine of a Fabric.
type Host = memnet.Host

// NewFabric returns a network without hosts.
func NewFabric() *Fabric { return memnet.New() }
