package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gotong/tasks"
)

// Targets is what a probing child tries to reach. All of it must be made for the
// purpose; an attempt that gets through does no harm to it.
type Targets struct {
	Process int    // the parent
	Key     string // a file with a secret
	Dir     string // a directory that the parent owns
	Socket  string // a unix socket on which somebody listens
	Address uint64 // a readable address in the parent
	// Without names layers that are left out, of Removable: so that one sees that
	// an attempt which gets through is noticed.
	Without []string
}

// Removable are the layers that Targets.Without may name. They can be left out
// of a child that probes, never of one that runs guests.
var Removable = []string{LayerNamespaces, LayerMounts, LayerDump, LayerLandlock, LayerSeccomp, LayerNoExec}

// MayLeaveOut reports whether name is of Removable.
func MayLeaveOut(name string) bool { return slices.Contains(Removable, name) }

// Attempt is one thing that a program in a child's place tried.
type Attempt struct {
	Name    string `json:"name"`
	Refused bool   `json:"refused"`
	How     string `json:"how"` // what the kernel answered, in words
}

// leftOut is why a layer of Targets.Without is not active.
const leftOut = "left out for this test"

// maxAttemptBytes bounds the report of a probing child.
const maxAttemptBytes = 64 << 10

// Probe starts a child that confines itself as one that runs guests does, as if
// its module were compiled, and then tries what a guest that took it over might.
// dir is its staging directory, as in Config. The layers are those of the child.
func (l *Launcher) Probe(ctx context.Context, dir string, t Targets) ([]Layer, []Attempt, error) {
	for _, name := range t.Without {
		if !MayLeaveOut(name) {
			return nil, nil, fmt.Errorf("layer %q cannot be left out; these can: %s", name, strings.Join(Removable, ", "))
		}
	}
	body, err := json.Marshal(t)
	if err != nil {
		return nil, nil, err
	}
	cfg := Config{Dir: dir, Limits: tasks.DefaultLimits()}
	c, err := l.newChild(cfg)
	if err != nil {
		return nil, nil, err
	}
	if slices.Contains(t.Without, LayerNamespaces) {
		c.most = &isolationFound{most: isolationNone, why: map[string]string{LayerNamespaces: leftOut, LayerMounts: leftOut}}
	} else if slices.Contains(t.Without, LayerMounts) {
		c.most = &isolationFound{most: isolationNoMounts, why: map[string]string{LayerMounts: leftOut}}
	}
	s := setup{Duty: dutyProbe, Limits: cfg.Limits, Probe: body}
	if err := l.begin(ctx, c, s); err != nil {
		return nil, nil, err
	}
	defer c.Close()
	release := c.killAfter(ctx, startWall)
	defer release()
	report, err := c.frames.next(frameAttempts, maxAttemptBytes)
	if err != nil {
		return c.layers, nil, c.startError(ctx, "probe", err)
	}
	var attempts []Attempt
	if err := json.Unmarshal(report, &attempts); err != nil {
		return c.layers, nil, fmt.Errorf("probe: %w", err)
	}
	return c.layers, attempts, nil
}

// probe is the child's side of Launcher.Probe, after lockDown.
func (c *child) probe(t Targets, seal func() error) error {
	if !slices.Contains(t.Without, LayerNoExec) {
		if err := seal(); err != nil && sealRequired {
			return err
		}
	}
	report, err := json.Marshal(attempts(c.dir, t))
	if err != nil {
		return err
	}
	return c.send(frameAttempts, func(b []byte) []byte { return append(b, report...) })
}
