//go:build !linux

package sandbox

import (
	"errors"

	"gotong/tasks"
)

var errNotHere = errors.New("not available on this system")

// firstStage has nothing to give up here; the second stage follows in the same
// process.
func firstStage() error { return nil }

// lockDown reports what is there: a process of its own, which ends when its
// parent closes the pipe. The engine's own walls stand everywhere.
func lockDown(string, tasks.Limits) []Layer {
	return []Layer{
		{Name: LayerProcess, Active: true, Required: true},
		{Name: LayerParent, Active: true, Required: true},
		layerOf(LayerIdle, false, errNotHere),
		layerOf(LayerRlimits, false, errNotHere),
		layerOf(LayerPrivileges, false, errNotHere),
		layerOf(LayerLandlock, false, errNotHere),
		layerOf(LayerSeccomp, false, errNotHere),
	}
}

// forbidNewCode does nothing here.
func forbidNewCode(tasks.Limits) error { return nil }
