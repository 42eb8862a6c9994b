package tasks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/storage"
)

func TestIDsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var id JobID
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "job"))
		if got, err := ParseJobID(id.String()); err != nil || got != id {
			t.Fatalf("%s came back as %s, %v", id, got, err)
		}
	})
	a, b := NewJobID(), NewJobID()
	if a == b || a.IsZero() || a.Compare(b) == 0 || len(a.Short()) != 12 {
		t.Errorf("%s and %s", a, b)
	}
}

func TestIDsThatAreNone(t *testing.T) {
	job := strings.Repeat("ab", 32)
	for _, s := range []string{"", job + ".", job + "1", strings.ToUpper(job), job[2:]} {
		if id, err := ParseJobID(s); err == nil {
			t.Errorf("%q is %s", s, id)
		}
	}
	if _, err := ParseContentID("xyz"); err == nil {
		t.Error("xyz is a content id")
	}
}

func FuzzParseJobID(f *testing.F) {
	f.Add(strings.Repeat("0", 64))
	f.Add(strings.Repeat("0", 64) + ".7")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseJobID(s); err == nil && id.String() != s {
			t.Errorf("%q came back as %q", s, id)
		}
	})
}

func FuzzValidName(f *testing.F) {
	for _, s := range []string{"a", "a/b.txt", "../a", "a//b", "/a", "a\\b", "c:d", "a\x00", "ü", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !ValidName(s) {
			return
		}
		for part := range strings.SplitSeq(s, "/") {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\:\x00\n\r") {
				t.Errorf("%q is valid", s)
			}
		}
	})
}

func validSpec() Spec {
	return Spec{
		Module: ContentID{1}, Args: []string{"a", ""}, Limits: DefaultLimits(),
		Inputs: []Input{{Name: "x/y", Content: ContentID{2}, Size: 3}, {Name: "z", Content: ContentID{2}, Size: 3}},
	}
}

func TestSpecValidate(t *testing.T) {
	if err := validSpec().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Spec){
		"no module":          func(s *Spec) { s.Module = ContentID{} },
		"NUL":                func(s *Spec) { s.Args = []string{"a\x00"} },
		"arguments of":       func(s *Spec) { s.Args = []string{strings.Repeat("a", MaxArgBytes+1)} },
		"1025 arguments":     func(s *Spec) { s.Args = make([]string, MaxArgs+1) },
		"16385 inputs":       func(s *Spec) { s.Inputs = make([]Input, MaxInputs+1) },
		"names of inputs":    func(s *Spec) { s.Inputs = manyInputs(MaxInputs, 100) },
		"bad input name":     func(s *Spec) { s.Inputs[0].Name = "../x" },
		"two inputs":         func(s *Spec) { s.Inputs[0].Name = "z" },
		"lies below":         func(s *Spec) { s.Inputs[0].Name = "z/y" },
		"no content":         func(s *Spec) { s.Inputs[0].Content = ContentID{} },
		"must be positive":   func(s *Spec) { s.Limits.OutputFiles = 0 },
		"time limit 168h0m1": func(s *Spec) { s.Limits.Wall = MaxWall + time.Second },
		"memory limit":       func(s *Spec) { s.Limits.MemoryBytes = MaxMemoryBytes + 1 },
		"unknown runtime":    func(s *Spec) { s.Runtime = "lisp" },
		"with a module":      func(s *Spec) { s.Runtime = RuntimeNative },
		"no command":         func(s *Spec) { s.Runtime, s.Module, s.Args = RuntimeNative, ContentID{}, nil },
		"standard input":     func(s *Spec) { s.StdinSize = 1 },
	} {
		s := validSpec()
		change(&s)
		if err := s.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// manyInputs returns inputs of as many contents less one, with names so long.
func manyInputs(n, name int) (list []Input) {
	for i := range n {
		list = append(list, Input{Name: fmt.Sprintf("%0*d", name, i), Content: ContentID{1 + byte(max(i, 1)>>8), byte(max(i, 1))}})
	}
	return list
}

func TestContentsOfMany(t *testing.T) {
	s := validSpec()
	s.Inputs = manyInputs(MaxInputs, 64)
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	got := s.Contents()
	if len(got) != MaxInputs || got[0] != s.Module || got[1] != s.Inputs[0].Content || got[2] != s.Inputs[2].Content {
		t.Errorf("%d contents", len(got))
	}
}

func TestContents(t *testing.T) {
	if got := validSpec().Contents(); !slices.Equal(got, []ContentID{{1}, {2}}) {
		t.Errorf("%v", got)
	}
}

func TestSeedDependsOnWhatRuns(t *testing.T) {
	seeds := map[[32]byte]string{validSpec().Seed(): "unchanged"}
	for name, change := range map[string]func(*Spec){
		"module":         func(s *Spec) { s.Module[5]++ },
		"argument":       func(s *Spec) { s.Args[0] = "b" },
		"split argument": func(s *Spec) { s.Args = []string{"", "a"} },
		"fewer inputs":   func(s *Spec) { s.Inputs = s.Inputs[:1] },
		"input name":     func(s *Spec) { s.Inputs[0].Name = "x/z" },
		"input":          func(s *Spec) { s.Inputs[0].Content[0]++ },
		"standard input": func(s *Spec) { s.Stdin[0]++ },
	} {
		s := validSpec()
		change(&s)
		if other, same := seeds[s.Seed()]; same {
			t.Errorf("%s: the same seed as %s", name, other)
		}
		seeds[s.Seed()] = name
	}
	s := validSpec()
	s.Limits.Wall++
	if s.Seed() != validSpec().Seed() {
		t.Error("the seed depends on a limit")
	}
}

func TestIDDependsOnAllThatCounts(t *testing.T) {
	wasi := validSpec()
	wasi.Runtime = RuntimeWASI
	if wasi.ID() != validSpec().ID() {
		t.Error("the default runtime has another id than its name")
	}
	ids := map[[32]byte]string{validSpec().ID(): "unchanged"}
	for name, change := range map[string]func(*Spec){
		"runtime":        func(s *Spec) { s.Runtime = RuntimeNative },
		"argument":       func(s *Spec) { s.Args[0] = "b" },
		"standard input": func(s *Spec) { s.Stdin[0]++ },
		"memory":         func(s *Spec) { s.Limits.MemoryBytes++ },
		"time":           func(s *Spec) { s.Limits.Wall++ },
		"stdout":         func(s *Spec) { s.Limits.StdoutBytes++ },
		"stderr":         func(s *Spec) { s.Limits.StderrBytes++ },
		"output":         func(s *Spec) { s.Limits.OutputBytes++ },
		"files":          func(s *Spec) { s.Limits.OutputFiles++ },
	} {
		s := validSpec()
		change(&s)
		if other, same := ids[s.ID()]; same {
			t.Errorf("%s: the same id as %s", name, other)
		}
		ids[s.ID()] = name
	}
}

func TestLimitsDefaults(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Error(err)
	}
	if err := CeilingLimits().Validate(); err != nil {
		t.Error(err)
	}
	own := Limits{1, 2, 3, 4, 5, 6}
	if err := own.Within(Limits{1, 2, 3, 4, 5, 5}); err == nil || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("one field above: %v", err)
	}
}

func validResult() Result {
	return Result{State: StateDone, Outputs: []Output{
		{Name: "a", Content: ContentID{1}},
		{Name: "b", Content: ContentID{2}, Size: 3, Data: []byte("abc")},
		{Name: "c", Content: ContentID{3}, Size: 1 << 30},
	}}
}

func TestResultValidate(t *testing.T) {
	if err := validResult().Validate(); err != nil {
		t.Fatal(err)
	}
	if o := validResult().Outputs; !o[0].Inline() || !o[1].Inline() || o[2].Inline() {
		t.Error("wrong outputs are inline")
	}
	for name, change := range map[string]func(*Result){
		"unknown state":       func(r *Result) { r.State = "asleep" },
		"limit \"\" in state": func(r *Result) { r.State = StateLimit },
		"limit \"wall\"":      func(r *Result) { r.Limit = LimitWall },
		"exit code 1":         func(r *Result) { r.ExitCode = 1 },
		"text too long":       func(r *Result) { r.Stderr = make([]byte, MaxStderrBytes+1) },
		"standard output": func(r *Result) {
			r.Stdout, r.LargeStdout = nil, &Output{Size: InlineStdoutBytes, Content: ContentID{1}}
		},
		"output apart": func(r *Result) {
			r.Stdout, r.LargeStdout = []byte("x"), &Output{Size: InlineStdoutBytes + 1, Content: ContentID{1}}
		},
		"reason too long":  func(r *Result) { r.Why = strings.Repeat("w", MaxWhyBytes+1) },
		"4097 outputs":     func(r *Result) { r.Outputs = make([]Output, MaxOutputFiles+1) },
		"output name":      func(r *Result) { r.Outputs[0].Name = "/a" },
		"not sorted":       func(r *Result) { r.Outputs[1].Name = "a" },
		"no content":       func(r *Result) { r.Outputs[1].Size = 4 },
		"too long for one": func(r *Result) { r.Outputs[1].Data = make([]byte, 300<<10); r.Outputs[1].Size = 300 << 10 },
	} {
		r := validResult()
		change(&r)
		if err := r.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for s, final := range map[State]bool{StateDone: true, StateFailed: true, StateLimit: true, StateCancelled: false, StateLost: false} {
		if s.Final() != final || !s.Valid() {
			t.Errorf("%s: final %v, valid %v", s, s.Final(), s.Valid())
		}
	}
}

// TestDigestOfLargeStdout: it counts by its size and its hash, in whatever place it is.
func TestDigestOfLargeStdout(t *testing.T) {
	digest := func(size int64, content byte, at *Stored) [32]byte {
		r := Result{State: StateDone, LargeStdout: &Output{Size: size, Content: ContentID{content}, Stored: at}}
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
		return r.Digest()
	}
	const size = InlineStdoutBytes + 1
	one := digest(size, 1, nil)
	if one != digest(size, 1, &Stored{Size: size, Segments: make([]storage.SegmentID, 1)}) {
		t.Error("the place counts")
	}
	if one == digest(size+1, 1, nil) || one == digest(size, 2, nil) || one == (Result{State: StateDone}).Digest() {
		t.Error("other texts have one digest")
	}
}

func TestMissingContent(t *testing.T) {
	var err error = &MissingContent{IDs: []ContentID{{1}, {2}}}
	if !errors.Is(err, ErrNoContent) || errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "010000000000, 020000000000") {
		t.Error(err)
	}
}
