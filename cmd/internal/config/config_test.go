package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"gotong/configs"
	"gotong/grid/node"
)

func TestSampleEqualsDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(file, configs.Sample, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := load(file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, have := flatten(node.DefaultConfig()), flatten(got.Config)
	for key := range want {
		if !strings.HasPrefix(originOf(t, got, key), "file ") {
			t.Errorf("%s is missing in the sample", key)
		}
		if list, ok := want[key].([]string); ok && len(list) == 0 && reflect.ValueOf(have[key]).Len() == 0 { // as good as no list
			continue
		}
		if !reflect.DeepEqual(have[key], want[key]) {
			t.Errorf("%s: sample %v, default %v", key, have[key], want[key])
		}
	}
}

// TestRestartKeys: the sample names the keys that a running peer does not take over,
// and each is one.
func TestRestartKeys(t *testing.T) {
	defaults := flatten(node.DefaultConfig())
	for _, key := range node.RestartKeys() {
		known := false
		for k := range defaults {
			known = known || k == key || strings.HasPrefix(k, key+".")
		}
		if !known {
			t.Errorf("%s is no key", key)
		}
	}
	head, _, _ := strings.Cut(string(configs.Sample), "\n\n")
	_, list, _ := strings.Cut(strings.ReplaceAll(head, "\n# ", " "), "after a restart only: ")
	if want := strings.Join(node.RestartKeys(), ", ") + "."; list != want {
		t.Errorf("the sample names %q, want %q", list, want)
	}
}

func originOf(t *testing.T, r Result, key string) string {
	t.Helper()
	for _, v := range r.Values {
		if v.Key == key {
			return v.Origin
		}
	}
	t.Fatalf("no value for %s", key)
	return ""
}

func TestLaterSourcesWin(t *testing.T) {
	file := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(file, []byte("name: from-file\ngive: 2GB\nslots: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Int("slots", 0, "")
	flags.StringSlice("advertise", nil, "")
	if err := flags.Parse([]string{"--slots=5", "--advertise=a:1", "--advertise=b:2"}); err != nil {
		t.Fatal(err)
	}
	got, err := load(file, flags, []string{"GOTONG_GIVE=3GiB", "GOTONG_STORE_KEEP_FREE=5MB", "GOTONG_HOME=/nowhere", "OTHER=1"})
	if err != nil {
		t.Fatal(err)
	}
	c := got.Config
	if c.Name != "from-file" || c.Give != 3<<30 || c.Slots != 5 || c.Store.KeepFree != 5e6 ||
		!reflect.DeepEqual(c.Advertise, []string{"a:1", "b:2"}) || c.Redundancy != "auto" {
		t.Errorf("got %+v", c)
	}
	for key, want := range map[string]string{
		"name": "file " + file, "give": "environment GOTONG_GIVE", "slots": "flag --slots", "redundancy": "default",
	} {
		if origin := originOf(t, got, key); origin != want {
			t.Errorf("origin of %s: %q, want %q", key, origin, want)
		}
	}
}

func TestFaultsNameTheirKey(t *testing.T) {
	for _, test := range []struct{ name, yaml, env, want string }{
		{"unknown key", "nmae: x\n", "", `unknown key "nmae"`},
		{"unknown nested key", "store:\n  keep: 1GB\n", "", `unknown key "store.keep"`},
		{"unknown variable", "", "GOTONG_STORE_KEEPFREE=1GB", "GOTONG_STORE_KEEPFREE"},
		{"bad size", "give: lots\n", "", "lots"},
		{"bad redundancy", "redundancy: 0+3\n", "", "redundancy"},
		{"bad listen", "listen: here\n", "", "listen"},
		{"bad preset", "gossip:\n  preset: moon\n", "", "gossip.preset"},
		{"unknown key of a set", "backup:\n  sets:\n    photos:\n      paths: [/p]\n      evry: 6h\n", "", `unknown key "backup.sets.photos.evry"`},
		{"unknown key of keep", "backup:\n  sets:\n    photos:\n      paths: [/p]\n      keep: {dayly: 7}\n", "", `unknown key "backup.sets.photos.keep.dayly"`},
		{"empty set", "backup:\n  sets:\n    photos: {}\n", "", "backup.sets.photos: want at least paths"},
		{"set without paths", "backup:\n  sets:\n    photos: {every: 6h}\n", "", "backup.sets.photos.paths: there is none"},
		{"sets as a list", "backup:\n  sets: [photos]\n", "", "backup.sets"},
		{"relative path", "backup:\n  sets:\n    photos: {paths: [photos]}\n", "", `backup.sets.photos.paths: "photos" is neither`},
		{"bad name of a set", "backup:\n  sets:\n    my photos: {paths: [/p]}\n", "", "backup.sets.my photos: the name of a set"},
		{"two schedules", "backup:\n  sets:\n    photos: {paths: [/p], every: 6h, cron: '@daily'}\n", "", "backup.sets.photos.cron: either"},
		{"bad cron", "backup:\n  sets:\n    photos: {paths: [/p], cron: '0 25 * * *'}\n", "", "backup.sets.photos.cron: \"0 25"},
		{"cron with seconds", "backup:\n  sets:\n    photos: {paths: [/p], cron: '0 0 3 * * *'}\n", "", "backup.sets.photos.cron"},
		{"cron that is never due", "backup:\n  sets:\n    photos: {paths: [/p], cron: '0 3 31 2 *'}\n", "", "backup.sets.photos.cron"},
		{"bad period", "backup:\n  sets:\n    photos: {paths: [/p], every: often}\n", "", `period "often"`},
		{"not yaml", "\tname: [\n", "", FileName},
		{"line of an unknown key", "name: x\nstore:\n  # not so\n  keep: 1GB\n", "", "line 4: unknown key"},
		{"line of a bad size", "name: x\ngive: lots\n", "", "line 2: "},
		{"line of a bad value", "name: x\nrepair:\n  rate: 1MB\n  grace: 0s\n", "", "line 4: repair.grace"},
		{"line in a set", "backup:\n  sets:\n    photos:\n      paths: [photos]\n", "", "line 4: backup.sets.photos.paths"},
		{"not of the file", "give: 1GB\n", "GOTONG_GIVE=lots", "lots"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), FileName)
			if err := os.WriteFile(file, []byte(test.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			var environ []string
			if test.env != "" {
				environ = []string{test.env}
			}
			_, err := load(file, nil, environ)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v does not name %q", err, test.want)
			}
		})
	}
}

func TestSaveKeepsWhatDiffers(t *testing.T) {
	home := t.TempDir()
	want := node.DefaultConfig()
	want.Name, want.Listen, want.Give, want.Slots = "ada", "127.0.0.1:7000", 50e9, 2
	want.Advertise = []string{"example.org:7000"}
	if err := Save(home, want); err != nil {
		t.Fatal(err)
	}
	got, err := load(filepath.Join(home, FileName), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Config, want) {
		t.Errorf("got %+v\nwant %+v", got.Config, want)
	}
	if origin := originOf(t, got, "log.level"); origin != "default" {
		t.Errorf("an unchanged key was written: %s", origin)
	}
}

// TestSampleSet: the set that the sample shows in comments is valid and reaches
// the configuration whole.
func TestSampleSet(t *testing.T) {
	sample := string(configs.Sample)
	from, to := strings.Index(sample, "  #  sets:\n"), strings.Index(sample, "  sets: {}\n")
	if from < 0 || to < from {
		t.Fatal("the sample shows no set")
	}
	yaml := "backup:\n"
	for line := range strings.Lines(sample[from:to]) {
		yaml += strings.TrimPrefix(line, "  #")
	}
	file := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := load(file, nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, yaml)
	}
	const day = node.Period(24 * time.Hour)
	want := node.SetConfig{
		Paths: []string{"~/photos", "/srv/scans"}, Exclude: []string{"*.tmp", "/cache/"}, ExcludeFiles: []string{"~/.backupignore"},
		ExcludeCaches: true, ExcludeIfPresent: []string{".nobackup"}, Tags: []string{"home"}, Redundancy: "4+2", Every: day / 4,
		Keep: node.KeepConfig{Last: 3, Hourly: 24, Daily: 7, Weekly: 5, Monthly: 12, Yearly: 10, Within: "30d", Tags: []string{"keep"}},
	}
	if have := got.Config.Backup.Sets["photos"]; !reflect.DeepEqual(have, want) {
		t.Errorf("got %+v\nwant %+v", have, want)
	}
	if origin := originOf(t, got, "backup.sets.photos.keep.within"); origin != "file "+file {
		t.Errorf("origin %q", origin)
	}
	home := t.TempDir()
	if err := Save(home, got.Config); err != nil {
		t.Fatal(err)
	}
	saved, err := load(filepath.Join(home, FileName), nil, nil)
	if err != nil || !reflect.DeepEqual(saved.Config, got.Config) {
		t.Errorf("saved and loaded: %+v, %v", saved.Config, err)
	}
}

func FuzzFile(f *testing.F) {
	f.Add(configs.Sample)
	f.Add([]byte("name: [1, 2]\n"))
	f.Add([]byte("give: -1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), FileName)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := load(file, nil, nil); err == nil && r.Config.Validate() != nil {
			t.Error("an invalid configuration was accepted")
		}
	})
}
