package batch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"gotong/tasks/batch"
)

func expandAll(t *testing.T, plan batch.Plan, repeat bool, stdin string, words ...string) ([]string, error) {
	t.Helper()
	command, sources, err := batch.SplitArgs(words)
	if err != nil {
		return nil, err
	}
	template, err := batch.ParseTemplate(command, repeat)
	if err != nil {
		return nil, err
	}
	plan.Sources = sources
	var list []string
	for values, err := range plan.Tasks(func(path string) (io.ReadCloser, error) {
		if path != batch.StandardInput {
			return nil, fmt.Errorf("%s: no such file", path)
		}
		return io.NopCloser(strings.NewReader(stdin)), nil
	}) {
		if err != nil {
			return list, err
		}
		args, err := template.Expand(len(list)+1, values)
		if err != nil {
			return list, err
		}
		list = append(list, fmt.Sprintf("%q", args))
	}
	return list, nil
}

func TestExpansion(t *testing.T) {
	two := batch.Plan{PerTask: 2}
	for _, c := range []struct {
		plan   batch.Plan
		repeat bool
		words  []string
		want   []string
	}{
		{words: []string{"x", ":::", "a b", "c"}, want: []string{`["x" "a b"]`, `["x" "c"]`}},
		{words: []string{"{}{}", ":::", "a"}, want: []string{`["aa"]`}},
		{words: []string{"{1}-{2}", ":::", "a", "b", ":::", "1", "2"}, want: []string{`["a-1"]`, `["a-2"]`, `["b-1"]`, `["b-2"]`}},
		{words: []string{"{1}-{2}", ":::", "a", "b", ":::+", "1", "2", "3"}, want: []string{`["a-1"]`, `["b-2"]`}},
		{words: []string{"{#}", ":::", "a", "b"}, want: []string{`["1"]`, `["2"]`}},
		{words: []string{"{.}", "{/}", "{//}", "{/.}", ":::", "a/b.tar.gz"}, want: []string{`["a/b.tar" "b.tar.gz" "a" "b.tar"]`}},
		{words: []string{":::", "a\nb", ""}, want: []string{`["a\nb"]`, `[""]`}},
		{words: []string{"", "{}", ":::", "a"}, want: []string{`["" "a"]`}},
		{words: []string{"{x}", "{}}", "{-}", "{0}", "{-1}", "{7}", ":::", "a"}, want: []string{`["{x}" "a}" "{-}" "{0}" "a"]`}},
		{words: []string{"f", ":::"}},
		{words: []string{"f", ":::", "a", ":::"}},
		{words: []string{"f", "::::", "-"}, want: []string{`["f" "one"]`, `["f" ""]`, `["f" "two "]`}},
		{words: []string{"f", ":::", "1", "2", "::::", "-"}, want: []string{
			`["f" "1" "one"]`, `["f" "1" ""]`, `["f" "1" "two "]`, `["f" "2" "one"]`, `["f" "2" ""]`, `["f" "2" "two "]`}},
		{plan: two, repeat: true, words: []string{"x{}", "{2}", ":::", "a", "b", "c"}, want: []string{`["xa" "xb" "b"]`, `["xc"]`}},
		{plan: batch.Plan{NoValues: true}, repeat: true, words: []string{"x", "{}", ":::", "a", "b"}, want: []string{`["x"]`, `["x"]`}},
		{plan: batch.Plan{Columns: regexp.MustCompile(`\t`)}, words: []string{"{2}{1}", ":::", "a\t b ", "c"}, want: []string{`["ba"]`, `["c"]`}},
	} {
		got, err := expandAll(t, c.plan, c.repeat, "one\n\ntwo ", c.words...)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %s, %v; want %s", c.words, got, err, c.want)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	for want, words := range map[string][]string{
		"slot":                 {"{%}", ":::", "a"},
		"Perl":                 {"{= s/a/b/ =}", ":::", "a"},
		"no file":              {"x", "::::"},
		"standard input":       {"x", "::::", "-", "-"},
		"no such file":         {"x", "::::", "missing"},
		"a line of more than":  {"x", ":::", "1", "::::", "-"},
		"arguments, or 128":    {strings.Repeat("{}", 200), ":::", strings.Repeat("v", 1000)},
		"sources of items, at": slices.Concat([]string{"x"}, slices.Repeat([]string{":::", "a"}, batch.MaxSources+1)),
	} {
		_, err := expandAll(t, batch.Plan{}, false, strings.Repeat("l", batch.MaxValueBytes+1), words...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v does not mention %s", words, err, want)
		}
	}
}

// TestAMillionTasks are made one after the other, of a stream that is not kept.
func TestAMillionTasks(t *testing.T) {
	lines := 0
	stream := readerFunc(func(p []byte) (int, error) {
		if lines == 1_000_000 {
			return 0, io.EOF
		}
		lines++
		return copy(p, fmt.Sprintln(lines)), nil
	})
	plan := batch.Plan{Sources: []batch.Source{{Path: batch.StandardInput}}}
	n := 0
	for values, err := range plan.Tasks(func(string) (io.ReadCloser, error) { return io.NopCloser(stream), nil }) {
		if n++; err != nil || len(values) != 1 {
			t.Fatal(values, err)
		}
		if n-lines > 1 || lines-n > 5000 {
			t.Fatalf("%d lines were read for task %d", lines, n)
		}
	}
	if n != 1_000_000 {
		t.Errorf("%d tasks", n)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestBlocksAreTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.SampledFrom([]byte("ab\n>;"))).Draw(t, "text")
		s := batch.Splitter{
			Block:       rapid.Int64Range(1, 20).Draw(t, "block"),
			Records:     rapid.IntRange(0, 3).Draw(t, "records"),
			RecordStart: rapid.SampledFrom([]string{"", ">"}).Draw(t, "start"),
			RecordEnd:   rapid.SampledFrom([]string{"", "\n", ";"}).Draw(t, "end"),
		}
		var all []byte
		blocks := 0
		for block, err := range s.Blocks(bytes.NewReader(text)) {
			if err != nil || len(block) == 0 {
				t.Fatal(block, err)
			}
			if cut := len(all); cut > 0 && (!bytes.HasPrefix(block, []byte(s.RecordStart)) || !bytes.HasSuffix(all, []byte(s.RecordEnd))) {
				t.Fatalf("cut at %d of %q", cut, text)
			}
			if s.Records > 0 && s.RecordStart == "" && s.RecordEnd != "" && bytes.Count(block, []byte(s.RecordEnd)) > s.Records {
				t.Fatalf("block %q has more than %d records", block, s.Records)
			}
			all = append(all, block...)
			blocks++
		}
		if !bytes.Equal(all, text) {
			t.Fatalf("%q of %q", all, text)
		}
	})
	for _, err := range (batch.Splitter{}).Blocks(io.MultiReader(strings.NewReader("x"), readerFunc(func([]byte) (int, error) { return 0, io.ErrNoProgress }))) {
		if !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "10M": 10 << 20, "1.5k": 1500, "2G": 2 << 30} {
		if got, err := batch.ParseSize(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "M", "-1", "0", "1X", "NaN", "1e300G"} {
		if got, err := batch.ParseSize(text); err == nil {
			t.Errorf("%s: %d", text, got)
		}
	}
}

func TestListsGiveBackWhatTheyGot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 300).Draw(t, "entries")
		var raw []byte
		for _, entry := range entries {
			raw = batch.AppendEntry(raw, entry)
		}
		l, err := batch.OpenList(bytes.NewReader(raw), int64(len(raw)), len(entries))
		if err != nil || l.Len() != len(entries) {
			t.Fatal(l, err)
		}
		check := func(i int) {
			if got, err := l.Entry(i); err != nil || !bytes.Equal(got, entries[i]) {
				t.Fatalf("entry %d is %q, %v", i, got, err)
			}
		}
		for i := range entries {
			check(i)
		}
		if len(entries) > 0 {
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(entries)-1), 0, 20).Draw(t, "at") {
				check(i)
			}
		}
	})
}

func FuzzOpenList(f *testing.F) {
	f.Add([]byte{})
	f.Add(batch.AppendEntry(batch.AppendEntry(nil, []byte("a")), nil))
	f.Add([]byte{0x81, 0x00, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := batch.OpenList(bytes.NewReader(raw), int64(len(raw)), 1000)
		if err != nil {
			return
		}
		var again []byte
		for i := range l.Len() {
			entry, err := l.Entry(i)
			if err != nil {
				t.Fatal(err)
			}
			again = batch.AppendEntry(again, entry)
		}
		if !bytes.Equal(again, raw) {
			t.Fatalf("%x came back as %x", raw, again)
		}
	})
}

func FuzzParseTemplate(f *testing.F) {
	f.Add("{}x{1.}{//}", "a/b", true)
	f.Add("{-9999}{10000}{{}}", "", false)
	f.Fuzz(func(t *testing.T, word, value string, repeat bool) {
		template, err := batch.ParseTemplate([]string{word}, repeat)
		if err != nil {
			return
		}
		args, err := template.Expand(7, []string{value})
		if err != nil {
			return
		}
		if len(args) > 2 || (!template.Marked() && !slices.Equal(args, []string{word, value})) {
			t.Errorf("%q with %q: %q", word, value, args)
		}
	})
}
