//go:build !linux

package sandbox

import "errors"

// sealRequired says that guests run without LayerNoExec.
const sealRequired = false

var errNotHere = errors.New("not available on this system")

// firstStage has nothing to give up here; the second stage follows in the same
// process.
func firstStage(bool, ...string) error { return nil }

// lockDown reports what is there: a process of its own, which ends when its
// parent closes the pipe. The engine's own walls stand everywhere.
func lockDown(string, setup, []string) (layers []Layer, seal func() error) {
	return []Layer{
		{Name: LayerProcess, Active: true, Required: true},
		{Name: LayerParent, Active: true, Required: true},
		layerOf(LayerNamespaces, false, errNotHere),
		layerOf(LayerMounts, false, errNotHere),
		layerOf(LayerIdle, false, errNotHere),
		layerOf(LayerRlimits, false, errNotHere),
		layerOf(LayerPrivileges, false, errNotHere),
		layerOf(LayerDump, false, errNotHere),
		layerOf(LayerLandlock, false, errNotHere),
		layerOf(LayerScope, false, errNotHere),
		layerOf(LayerSeccomp, false, errNotHere),
	}, func() error { return errNotHere }
}
