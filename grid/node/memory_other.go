//go:build !linux

package node

// machineMemory returns how much memory this machine has; 0: unknown.
func machineMemory() uint64 { return 0 }
