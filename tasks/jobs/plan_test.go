package jobs

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/storage"
	"gotong/tasks"
)

func TestPlanComesBack(t *testing.T) {
	p := planOf(t, 3, 3, 1)
	p.Priority, p.Grant = -5, []byte("grant")
	p.Steps[0].Outputs = true
	p.Steps[1].Needs = []Need{{Step: 0, Files: true, Stdin: true}}
	p.Steps[2].Items = Items{Count: 1}
	p.Steps[2].Needs = []Need{{Step: 0, Files: true, Gather: true}, {Step: 1, Stdin: true, Gather: true}}
	p.Steps[2].Common = []tasks.Input{{Name: "a/b", Content: tasks.ContentID{8}, Size: 5}}
	p.Steps[2].Stored = map[tasks.ContentID]tasks.Stored{{8}: {Size: 5, Segments: []storage.SegmentID{{1}}, Holders: []grid.PeerID{{2}}}}
	p.Steps[2].Where, p.Steps[2].Retries, p.Steps[2].MaxPeers = `arch == "amd64"`, 2, 7
	p.number()
	raw, err := SignPlan(keyOf(1), p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenPlan(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Errorf("came back as\n%+v\nwant\n%+v", got, p)
	}
	if got.Tasks() != 7 || got.StepOf(0) != 0 || got.StepOf(3) != 1 || got.StepOf(5) != 1 || got.StepOf(6) != 2 {
		t.Errorf("%d tasks", got.Tasks())
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 4
		if _, err := OpenPlan(changed); !errors.Is(err, identity.ErrBadSignature) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	p.Submitter = grid.PeerID{1}
	if raw, err = SignPlan(keyOf(1), p); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPlan(raw); !errors.Is(err, identity.ErrBadSignature) {
		t.Errorf("signed by another: %v", err)
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Plan){
		"no steps":            func(p *Plan) { p.Steps = nil },
		"name":                func(p *Plan) { p.Steps[0].Name = "../x" },
		"same name":           func(p *Plan) { p.Steps[1].Name = p.Steps[0].Name },
		"needs itself":        func(p *Plan) { p.Steps[1].Needs = []Need{{Step: 1}} },
		"needs another count": func(p *Plan) { p.Steps[1].Needs = []Need{{Step: 0}} },
		"needs no outputs":    func(p *Plan) { p.Steps[1].Needs = []Need{{Step: 0, Gather: true, Files: true}} },
		"limits":              func(p *Plan) { p.Steps[0].Limits.Wall = 0 },
		"keepers":             func(p *Plan) { p.Keepers = "them" },
		"on failure":          func(p *Plan) { p.Steps[0].OnFailure = "" },
		"module":              func(p *Plan) { p.Steps[0].Module = tasks.ContentID{} },
		"expired":             func(p *Plan) { p.Expires = p.Created },
		"items":               func(p *Plan) { p.Steps[0].Items.Size++ },
		"known twice":         func(p *Plan) { *p = withKnown(t, *p, 1, 1) },
		"known beyond":        func(p *Plan) { *p = withKnown(t, *p, 5) },
		"known by another":    func(p *Plan) { *p = withKnown(t, *p, 1); p.Known[0].Peer = grid.PeerID{1} },
	} {
		p := planOf(t, 2, 3)
		spoil(&p)
		if _, err := SignPlan(keyOf(1), p); !errors.Is(err, tasks.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpenPlan(f *testing.F) {
	raw, err := SignPlan(keyOf(1), planOf(f, 2, 1))
	if err != nil {
		f.Fatal(err)
	}
	signed, _ := identity.ParseSigned(raw)
	f.Add(signed.Body)
	raw, err = SignPlan(keyOf(1), withKnown(f, planOf(f, 2, 1), 0, 2))
	if err != nil {
		f.Fatal(err)
	}
	signed, _ = identity.ParseSigned(raw)
	f.Add(signed.Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := OpenPlan(identity.Sign(keyOf(1), DomainPlan, body).Encode())
		if err != nil {
			return
		}
		if _, err := SignPlan(keyOf(1), p); err != nil {
			t.Fatalf("cannot be signed again: %v", err)
		}
		NewState(p).StepStates()
	})
}

func TestItems(t *testing.T) {
	list := words(1000)
	list[77] = Item{Words: []string{"", "two words", "\xff"}, Inputs: []tasks.Input{{Name: "x", Content: tasks.ContentID{1}, Size: 3}}, Stdin: tasks.ContentID{2}, StdinSize: 9}
	items := inlineList(t, list...)
	r, err := inlineItems(items)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 63, 64, 77, 128, 999} {
		got, err := r.Item(i)
		if err != nil || !reflect.DeepEqual(got, list[i]) {
			t.Errorf("item %d: %+v %v", i, got, err)
		}
	}
	if _, err := r.Item(1000); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("item beyond the end: %v", err)
	}
	if _, err := OpenItems(bytes.NewReader(items.Data), items.Size, 999); !errors.Is(err, tasks.ErrInvalid) {
		t.Errorf("another count: %v", err)
	}
}

func FuzzItems(f *testing.F) {
	items := inlineList(f, words(70)...)
	f.Add(items.Data, 70, 66)
	f.Fuzz(func(t *testing.T, data []byte, count, i int) {
		r, err := OpenItems(bytes.NewReader(data), int64(len(data)), count)
		if err != nil {
			return
		}
		_, _ = r.Item(i) // must not panic
	})
}
