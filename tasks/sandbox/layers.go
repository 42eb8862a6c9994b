package sandbox

import (
	"fmt"
	"strings"

	"gotong/tasks"
)

// Layer is one wall around a guest.
type Layer struct {
	Name     string
	Active   bool
	Required bool   // on this system; without it no guest runs
	Why      string // why it is not active, in words
}

// StaticBuild is what Layer.Why says of a program that needs shared libraries.
const StaticBuild = "build it with CGO_ENABLED=0"

// The names of the layers, in the order in which they are applied.
const (
	LayerProcess    = "process"        // own process and process group, killed at the time limit
	LayerParent     = "parent death"   // ends with its parent
	LayerNamespaces = "namespaces"     // users, network and System V objects of its own
	LayerMounts     = "mounts"         // a root directory and processes of its own
	LayerCgroup     = "cgroup"         // memory, processes and weight kept by the kernel for the group
	LayerIdle       = "idle class"     // runs only when nothing else wants the processor
	LayerRlimits    = "rlimits"        // data, file size, open files, no core dump
	LayerPrivileges = "no new privs"   // and no capability
	LayerDump       = "no dump"        // others of the same user cannot look into it
	LayerLandlock   = "landlock"       // sees three directories
	LayerScope      = "landlock scope" // no network and no signals to others, once more
	LayerSeccomp    = "seccomp"        // a short list of system calls
	LayerNoExec     = "no new code"    // no executable memory after compilation
)

// refuse returns an error that names every required layer that is missing.
func refuse(layers []Layer) error {
	var missing []string
	for _, l := range layers {
		if l.Required && !l.Active {
			missing = append(missing, fmt.Sprintf("%s: %s", l.Name, l.Why))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", tasks.ErrSandbox, strings.Join(missing, "; "))
}

// layerOf describes a layer by the error of applying it.
func layerOf(name string, required bool, err error) Layer {
	l := Layer{Name: name, Active: err == nil, Required: required}
	if err != nil {
		l.Why = err.Error()
	}
	return l
}
