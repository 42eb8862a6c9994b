package sandbox

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gotong/tasks"
	"gotong/tasks/guests"
)

func openCache(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(dir, MinCacheBytes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runCached runs the echo mode of probe in a new child and returns what the
// cache did for it.
func runCached(t *testing.T, cache *Cache) CacheCounts {
	t.Helper()
	l, err := OpenLauncher(Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := cache.Counts()
	c, err := l.Start(context.Background(), Config{Dir: t.TempDir(), Module: guestModule(t, "probe"), Limits: testLimits()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, layer := range c.Layers() {
		if layer.Required && !layer.Active {
			t.Errorf("layer %s: %s", layer.Name, layer.Why)
		}
	}
	o := run(t, c, "echo", "hello")
	wantDone(t, o)
	if string(o.Stdout) != "hello\n" {
		t.Errorf("%q", o.Stdout)
	}
	after := cache.Counts()
	return CacheCounts{after.Hits - before.Hits, after.Compiled - before.Compiled, after.SetAside - before.SetAside}
}

func entries(t *testing.T, dir, suffix string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestCompiledOnce(t *testing.T) {
	dir := t.TempDir()
	cache := openCache(t, dir)
	if got := runCached(t, cache); got != (CacheCounts{Hits: 1, Compiled: 1}) {
		t.Errorf("first: %+v", got)
	}
	if got := runCached(t, cache); got != (CacheCounts{Hits: 1}) {
		t.Errorf("second: %+v", got)
	}
	os.WriteFile(filepath.Join(dir, ".half.tmp"), []byte("of a crash"), 0o600)
	if got := runCached(t, openCache(t, dir)); got != (CacheCounts{Hits: 1}) {
		t.Errorf("after a restart: %+v", got)
	}
	if left := entries(t, dir, ".tmp"); len(left) != 0 {
		t.Errorf("%q", left)
	}
	if list, err := os.ReadDir(filepath.Join(dir, compilingDir)); err != nil || len(list) != 0 {
		t.Errorf("%d staging directories are left (%v)", len(list), err)
	}
}

// TestChangedCodeIsNotUsed changes the file, its seal and the key in each way
// that a disk or a person might.
func TestChangedCodeIsNotUsed(t *testing.T) {
	flip := func(t *testing.T, path string, at int) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[(at+len(b))%len(b)] ^= 1
		os.Chmod(path, 0o600)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(t *testing.T, dir, code, seal string){
		"code":      func(t *testing.T, _, code, _ string) { flip(t, code, 5000) },
		"head":      func(t *testing.T, _, code, _ string) { flip(t, code, 0) },
		"mac":       func(t *testing.T, _, _, seal string) { flip(t, seal, len(sealMagic)+8) },
		"size":      func(t *testing.T, _, _, seal string) { flip(t, seal, len(sealMagic)) },
		"place":     func(t *testing.T, _, _, seal string) { flip(t, seal, -1) },
		"magic":     func(t *testing.T, _, _, seal string) { flip(t, seal, 0) },
		"cut":       func(t *testing.T, _, code, _ string) { os.Chmod(code, 0o600); os.Truncate(code, 100) },
		"gone":      func(t *testing.T, _, code, _ string) { os.Remove(code) },
		"seal gone": func(t *testing.T, _, _, seal string) { os.Remove(seal) },
		"other key": func(t *testing.T, dir, _, _ string) { flip(t, filepath.Join(dir, "key"), 3) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache := openCache(t, dir)
			runCached(t, cache)
			code, seal := entries(t, dir, codeSuffix), entries(t, dir, sealSuffix)
			if len(code) != 1 || len(seal) != 1 {
				t.Fatalf("%q, %q", code, seal)
			}
			change(t, dir, code[0], seal[0])
			want := CacheCounts{Hits: 1, Compiled: 1, SetAside: 1}
			if name == "other key" { // it is read when the cache is opened
				cache = openCache(t, dir)
			}
			if got := runCached(t, cache); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if got := runCached(t, cache); got != (CacheCounts{Hits: 1}) {
				t.Errorf("the code that was made anew: %+v", got)
			}
		})
	}
}

// TestSetAsideIsBounded changes the code again and again.
func TestSetAsideIsBounded(t *testing.T) {
	dir := t.TempDir()
	cache := openCache(t, dir)
	key := codeKey{1}
	for i := range 3 * maxAside {
		if err := keepBytes(t, cache, key, []byte{byte(i), 1, 2}); err != nil {
			t.Fatal(err)
		}
		os.Chmod(cache.path(key, codeSuffix), 0o600)
		os.WriteFile(cache.path(key, codeSuffix), []byte("another"), 0o600)
		if cache.stage(key, t.TempDir()) {
			t.Fatal("changed code was given out")
		}
	}
	if list, err := os.ReadDir(filepath.Join(dir, asideDir)); err != nil || len(list) != maxAside {
		t.Errorf("%d files are set aside (%v), want %d", len(list), err, maxAside)
	}
}

// keepBytes stores code as if a compile child had left it.
func keepBytes(t *testing.T, cache *Cache, key codeKey, code []byte) error {
	t.Helper()
	dir := t.TempDir()
	place := filepath.Join(dir, codeDir, "engine")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(place, "code"), code, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := cache.keep(key, dir)
	return err
}

func stagedIn(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, codeDir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	cache := openCache(t, dir)
	big := bytes.Repeat([]byte("code"), MinCacheBytes/16)
	for i := range 5 { // each a quarter of the bound
		if err := keepBytes(t, cache, codeKey{byte(i)}, big); err != nil {
			t.Fatal(err)
		}
		if !cache.stage(codeKey{}, stagedIn(t)) && i < 4 {
			t.Fatal("what was used last is gone")
		}
	}
	if got := len(entries(t, dir, codeSuffix)); got != 4 || cache.used > MinCacheBytes {
		t.Errorf("%d entries, %d bytes", got, cache.used)
	}
	if cache.stage(codeKey{1}, stagedIn(t)) || !cache.stage(codeKey{}, stagedIn(t)) {
		t.Error("not what was used least recently had to go")
	}
	kept, err := cache.keep(codeKey{9}, leave(t, make([]byte, MinCacheBytes+1)))
	if kept || err != nil {
		t.Errorf("more than the bound: %t, %v", kept, err)
	}
}

func leave(t *testing.T, code []byte) string {
	t.Helper()
	dir := stagedIn(t)
	os.Mkdir(filepath.Join(dir, codeDir, "engine"), 0o700)
	if err := os.WriteFile(filepath.Join(dir, codeDir, "engine", "code"), code, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHostileCompileChild leaves what the engine never leaves.
func TestHostileCompileChild(t *testing.T) {
	cache := openCache(t, t.TempDir())
	for name, build := range map[string]func(dir string){
		"nothing":   func(string) {},
		"two files": func(dir string) { os.WriteFile(filepath.Join(dir, "engine", "more"), []byte("x"), 0o600) },
		"two dirs":  func(dir string) { os.Mkdir(filepath.Join(dir, "more"), 0o700) },
		"a link": func(dir string) {
			os.Remove(filepath.Join(dir, "engine", "code"))
			os.Symlink("/etc/passwd", filepath.Join(dir, "engine", "code"))
		},
		"a directory": func(dir string) {
			os.Remove(filepath.Join(dir, "engine", "code"))
			os.Mkdir(filepath.Join(dir, "engine", "code"), 0o700)
		},
		"a hidden name": func(dir string) {
			os.Rename(filepath.Join(dir, "engine", "code"), filepath.Join(dir, "engine", ".code"))
		},
		"an empty file": func(dir string) { os.Truncate(filepath.Join(dir, "engine", "code"), 0) },
	} {
		dir := leave(t, []byte("code"))
		if name == "nothing" {
			dir = stagedIn(t)
		}
		build(filepath.Join(dir, codeDir))
		if kept, err := cache.keep(codeKey{1}, dir); kept || err == nil {
			t.Errorf("%s: %t, %v", name, kept, err)
		}
	}
	if _, err := cache.keep(codeKey{1}, leave(t, []byte("code"))); err != nil {
		t.Errorf("what is right: %v", err)
	}
}

// TestOneCompilationForAll starts several children at once.
func TestOneCompilationForAll(t *testing.T) {
	cache := openCache(t, t.TempDir())
	l, err := OpenLauncher(Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	for range 4 {
		dir := t.TempDir()
		wg.Go(func() {
			c, err := l.Start(context.Background(), Config{Dir: dir, Module: guestModule(t, "probe"), Limits: testLimits()})
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		})
	}
	wg.Wait()
	if got := cache.Counts(); got.Compiled != 1 || got.Hits != 4 {
		t.Errorf("%+v, want one compilation for four", got)
	}
}

// TestFaultsComeThroughTheCache: a module that does not compile is told apart
// from a machine that cannot.
func TestFaultsComeThroughTheCache(t *testing.T) {
	cache := openCache(t, t.TempDir())
	l, err := OpenLauncher(Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for want, module := range map[string][]byte{
		"exports no _start": guestModule(t, "nostart"),
		"invalid":           {0, 'a', 's', 'm', 1, 0, 0, 0, 99, 1, 0},
	} {
		_, err := l.Start(context.Background(), Config{Dir: t.TempDir(), Module: module, Limits: testLimits()})
		if fault, ok := errors.AsType[*ModuleError](err); !ok || !strings.Contains(fault.Why, want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err = l.Start(context.Background(), Config{
		Dir: t.TempDir(), Module: guests.CompileBomb(3000, 3000), Limits: testLimits(), CompileWall: time.Second,
	})
	if fault, ok := errors.AsType[*ModuleError](err); !ok || fault.Limit != tasks.LimitCompile {
		t.Errorf("compile bomb: %v", err)
	}
	if got := cache.Counts(); got != (CacheCounts{}) {
		t.Errorf("%+v of modules that cannot run", got)
	}
}

func TestUnwritableCacheDoesNotStopTasks(t *testing.T) {
	dir := t.TempDir()
	cache := openCache(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := runCached(t, cache); got != (CacheCounts{}) {
		t.Errorf("%+v", got)
	}
}
