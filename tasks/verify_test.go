package tasks

import (
	"errors"
	"testing"
	"time"

	"gotong/grid"
)

func TestVerifyIsReadAndWritten(t *testing.T) {
	for in, want := range map[string]string{
		"":           "none",
		"none":       "none",
		"adaptive":   "adaptive",
		"quorum=2":   "quorum=2/3",
		"quorum=3":   "quorum=3/5",
		"quorum=2/2": "quorum=2/2",
		"quorum=2/3": "quorum=2/3",
		"quorum=10":  "quorum=10/15",
	} {
		v, err := ParseVerify(in)
		if err != nil || v.String() != want || v.Validate() != nil {
			t.Errorf("%q: %s, %v; want %s", in, v, err, want)
		}
		if again, err := ParseVerify(v.String()); again != v || err != nil {
			t.Errorf("%s is not read back: %s, %v", v, again, err)
		}
	}
	for _, in := range []string{"quorum", "quorum=", "quorum=1", "quorum=1/1", "quorum=3/2", "quorum=2/16", "quorum=-2", "quorum=2/", "quorum=x/3", "most", "None"} {
		if v, err := ParseVerify(in); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q was read as %s, %v", in, v, err)
		}
	}
	if err := (Verify{Mode: VerifyNone, Need: 2}).Validate(); err == nil {
		t.Error("counts without a quorum are valid")
	}
}

func TestDigestIsOfTheResultNotOfItsRun(t *testing.T) {
	base := Result{
		State: StateDone, Stdout: []byte("out"), Stderr: []byte("err"),
		Outputs: []Output{{Name: "a", Size: 3, Content: ContentID{1}}, {Name: "b", Size: 3, Content: ContentID{2}}},
	}
	change := func(f func(*Result)) Result {
		r := base
		r.Outputs = append([]Output(nil), base.Outputs...)
		f(&r)
		return r
	}
	for name, same := range map[string]Result{
		"peer":    change(func(r *Result) { r.Peer = grid.PeerID{1} }),
		"elapsed": change(func(r *Result) { r.Elapsed = time.Second }),
		"engine":  change(func(r *Result) { r.Engine = "another" }),
		"task":    change(func(r *Result) { r.Task.Index = 7 }),
		"inline":  change(func(r *Result) { r.Outputs[0].Data = []byte("abc") }),
	} {
		if same.Digest() != base.Digest() {
			t.Errorf("%s changes the digest", name)
		}
	}
	for name, other := range map[string]Result{
		"state":     change(func(r *Result) { r.State = StateFailed }),
		"exit code": change(func(r *Result) { r.ExitCode = 1 }),
		"stdout":    change(func(r *Result) { r.Stdout = []byte("oute"); r.Stderr = []byte("rr") }),
		"stderr":    change(func(r *Result) { r.Stderr = nil }),
		"name":      change(func(r *Result) { r.Outputs[0].Name = "A" }),
		"size":      change(func(r *Result) { r.Outputs[0].Size = 4 }),
		"content":   change(func(r *Result) { r.Outputs[1].Content = ContentID{3} }),
		"fewer":     change(func(r *Result) { r.Outputs = r.Outputs[:1] }),
	} {
		if other.Digest() == base.Digest() {
			t.Errorf("%s does not change the digest", name)
		}
	}
}

func TestWhatAMachineMeasuresIsComparedByStateAlone(t *testing.T) {
	early := Result{State: StateLimit, Limit: LimitWall, ExitCode: NoExitCode, Stdout: []byte("half")}
	late := Result{State: StateLimit, Limit: LimitWall, ExitCode: NoExitCode, Stdout: []byte("half of")}
	if !early.Measured() || early.Digest() != late.Digest() {
		t.Error("two runs into the time limit do not agree")
	}
	full := Result{State: StateLimit, Limit: LimitStdout, ExitCode: NoExitCode, Stdout: []byte("half")}
	if full.Measured() || full.Digest() == early.Digest() {
		t.Error("a limit that programs meet everywhere counts as measured")
	}
}
