package jobfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gotong/tasks"
	"gotong/tasks/jobs"
)

// write makes files below a fresh directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func build(t *testing.T, dir, text string) (*Draft, error) {
	t.Helper()
	f, err := Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	return f.Build(dir, t.TempDir())
}

// itemsOf reads the items of a step.
func itemsOf(t *testing.T, d *Draft, step int) (out []jobs.Item) {
	t.Helper()
	items := d.Plan.Steps[step].Items
	data := items.Data
	if data == nil {
		var err error
		if data, err = os.ReadFile(d.Files[items.Content]); err != nil {
			t.Fatal(err)
		}
	}
	r, err := jobs.OpenItems(bytes.NewReader(data), items.Size, items.Count)
	if err != nil {
		t.Fatal(err)
	}
	for i := range items.Count {
		item, err := r.Item(i)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, item)
	}
	return out
}

func TestBuild(t *testing.T) {
	dir := write(t, map[string]string{
		"prog.wasm": "\x00asm", "in/a.txt": "aaa", "in/b.txt": "b", "names": "x\ny\n", "common.dat": "c",
	})
	d, err := build(t, dir, `
name: everything
keepers: mine
priority: 3
retention: 48h
where: arch == "amd64"
steps:
  - name: count
    module: prog.wasm
    args: [-c, "{}"]
    items: {glob: "in/*.txt", stage: true}
    inputs: [common.dat]
    outputs: true
    verify: quorum=2/3
    resources: {memory: 64MiB, time: 30s, output: 10MB, scratch: 5MB}
    retries: 2
  - name: sort
    module: prog.wasm
    items: {like: count}
    where: memory >= 1GiB
    needs: [count]
  - name: all
    module: prog.wasm
    needs:
      - sort
      - {step: count, stdin: false}
  - name: grid
    module: prog.wasm
    items:
      product:
        - [a, b]
        - {file: names}
        - {range: {from: 9, to: 11, pad: 3}, linked: false}
`)
	if err != nil {
		t.Fatal(err)
	}
	p := d.Plan
	count, sorted, all := p.Steps[0], p.Steps[1], p.Steps[2]
	if p.Name != "everything" || p.Keepers != jobs.KeepersMine || p.Priority != 3 || p.Retention != 48*time.Hour {
		t.Errorf("%+v", p)
	}
	if count.Limits.MemoryBytes != 64<<20 || count.Limits.Wall != 30*time.Second || count.Limits.OutputBytes != 15e6 || count.Retries != 2 || count.Verify != "quorum=2/3" {
		t.Errorf("%+v", count)
	}
	if count.Where != `arch == "amd64"` || sorted.Where != "memory >= 1GiB" {
		t.Errorf("where %q %q", count.Where, sorted.Where)
	}
	if want := []jobs.Need{{Step: 0, Files: true}}; !reflect.DeepEqual(sorted.Needs, want) {
		t.Errorf("needs %+v", sorted.Needs)
	}
	if want := []jobs.Need{{Step: 1, Gather: true, Stdin: true}, {Step: 0, Gather: true, Files: true}}; !reflect.DeepEqual(all.Needs, want) {
		t.Errorf("needs %+v", all.Needs)
	}
	items := itemsOf(t, d, 0)
	if len(items) != 2 || items[0].Words[0] != "/in/in/a.txt" || items[0].Inputs[0].Name != "in/a.txt" || items[0].Inputs[0].Size != 3 {
		t.Errorf("%+v", items)
	}
	if string(items[1].Inline[0]) != "b" || len(count.Common) != 1 || count.Common[0].Name != "common.dat" {
		t.Errorf("files %v", d.Files)
	}
	grid := itemsOf(t, d, 3)
	if len(grid) != 12 || !reflect.DeepEqual(grid[0].Words, []string{"a", "x", "009"}) || !reflect.DeepEqual(grid[11].Words, []string{"b", "y", "011"}) {
		t.Errorf("%d of a product: %+v", len(grid), grid)
	}
}

func TestMillionItems(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a million items")
	}
	dir := write(t, map[string]string{"m": "\x00asm"})
	d, err := build(t, dir, "steps:\n- module: m\n  items: {range: {from: 1, to: 1000000}}\n")
	if err != nil {
		t.Fatal(err)
	}
	items := d.Plan.Steps[0].Items
	if items.Count != 1_000_000 || items.Data != nil || d.Sizes[items.Content] != items.Size {
		t.Errorf("%+v", items)
	}
	t.Logf("%d bytes for a million items", items.Size)
}

func TestFaults(t *testing.T) {
	dir := write(t, map[string]string{"m": "\x00asm", "empty": "", "d/x": ""})
	for text, want := range map[string]string{
		"":                                    "empty",
		"steps: []":                           "no steps",
		"steps:\n- modul: m":                  `line 2: unknown key "modul"`,
		"nam: x\nsteps: []":                   `line 1: unknown key "nam"`,
		"steps:\n- module: m\n---\nsteps: []": "one document",
		"steps:\n- module: m\n  resources:\n    memroy: 1GB":                                              `line 4: unknown key "memroy"`,
		"steps:\n- module: m\n  resources: {memory: 12XB}":                                                `line 3: "12XB" is no size`,
		"steps:\n- module: m\n  resources: {time: 5}":                                                     `line 3: "5" is no length of time`,
		"steps:\n- module: m\n  resources: {memory: 12GiB}":                                               "memory limit",
		"steps:\n- module: m\n  where: arch = 5":                                                          "line 3: where: column 6",
		"steps:\n- module: m\n  verify: quorum=5":                                                         "",
		"steps:\n- module: m\n  verify: often":                                                            "verification",
		"steps:\n- module: nowhere":                                                                       "nowhere",
		"steps:\n- module: empty":                                                                         "line 2: empty is no WASM module",
		"steps:\n- module: d":                                                                             "regular file",
		"steps:\n- module: m\n  items: {glob: '*.zip'}":                                                   `line 3: no file matches "*.zip"`,
		"steps:\n- module: m\n  items: {file: empty}":                                                     "no items",
		"steps:\n- module: m\n  items: {file: m, list: [a]}":                                              "one of list",
		"steps:\n- module: m\n  items: {product: [{product: [[a]]}]}":                                     "inside a product",
		"steps:\n- module: m\n  items: {range: {from: 5, to: 1}}":                                         "no numbers",
		"steps:\n- module: m\n  args: ['{= x =}']":                                                        "Perl",
		"steps:\n- module: m\n  needs: [later]":                                                           `"later" is not defined`,
		"steps:\n- module: m\n  name: a\n- module: m\n  name: a":                                          "two steps",
		"steps:\n- module: m\n  name: a\n  items: [x, y]\n- {module: m, name: b, items: [x], needs: [a]}": "gather: true",
		"steps:\n- module: m\n  name: a\n- {module: m, name: b, needs: [{step: a, files: true}]}":         "outputs: true",
		"steps:\n- module: m\n  runtime: docker":                                                          "runtime",
		"steps:\n- runtime: native":                                                                       "the command first",
		"steps:\n- module: m\n  items: {list: [nofile], stage: true}":                                     "nofile",
		"keepers: them\nsteps:\n- module: m":                                                              "keepers",
		"steps: 5":                                                                                        "line 1",
	} {
		_, err := build(t, dir, text)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "jobfile.") {
			t.Errorf("%q:\n%v, want %q", text, err, want)
		}
	}
}

func TestStagedName(t *testing.T) {
	for path, want := range map[string]string{"a/b": "a/b", "../x": "x", "/abs/y": "abs/y", "./z": "z", "a/../../b": "b"} {
		if got := StagedName(path); got != want || !tasks.ValidName(got) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name: x\nsteps:\n- name: a\n  module: m\n  items: {product: [[a], {range: {from: 1, to: 3}}]}\n  needs: [{step: b}]\n"))
	f.Add([]byte("steps: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := Parse(data); (file == nil) != (err != nil) && err == nil {
			t.Error("no file and no error")
		}
	})
}
