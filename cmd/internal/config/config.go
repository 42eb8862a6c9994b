// Package config makes a node.Config out of four sources, each overriding the
// one before: the code's defaults, the file config.yaml in the home directory,
// GOTONG_* environment variables, and command-line flags. It is the only
// importer of viper. Unknown keys are errors wherever they come from, and each
// value's origin is known.
package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"gotong/grid/disk"
	"gotong/grid/node"
)

const (
	// FileName is the configuration file inside a home directory.
	FileName = "config.yaml"
	// envPrefix starts every environment variable that is a key.
	envPrefix = "GOTONG"
	// HomeVariable names the home directory; it is not a key.
	HomeVariable = "GOTONG_HOME"
)

// FlagKeys maps the flags that override a key to that key.
var FlagKeys = map[string]string{
	"listen":     "listen",
	"advertise":  "advertise",
	"name":       "name",
	"site":       "site",
	"give":       "give",
	"slots":      "slots",
	"redundancy": "redundancy",
}

// Value is one effective setting.
type Value struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // default, file PATH, environment NAME or flag --NAME
}

// Result is a loaded configuration with the origin of each value.
type Result struct {
	Config node.Config
	Values []Value // sorted by key
}

// DefaultHome returns the home directory that is used when none is named:
// GOTONG_HOME, else the XDG state directory, else the platform's usual place.
func DefaultHome() (string, error) {
	if home := os.Getenv(HomeVariable); home != "" {
		return filepath.Abs(home)
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "gotong"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home directory: %w; name one with --home DIR", err)
	}
	return filepath.Join(user, ".local", "state", "gotong"), nil
}

// Load reads the configuration of a home directory. A missing file is no
// error. flags may be nil; only flags that were given on the command line
// count. All faults are reported together.
func Load(home string, flags *pflag.FlagSet) (Result, error) {
	return load(filepath.Join(home, FileName), flags, os.Environ())
}

func load(file string, flags *pflag.FlagSet, environ []string) (Result, error) {
	defaults := flatten(node.DefaultConfig())
	v := viper.New()
	for key, value := range defaults {
		v.SetDefault(key, value)
	}
	inFile, at, err := readFile(v, file, defaults)
	if err != nil {
		return Result{}, err
	}
	inEnv, err := readEnvironment(v, environ, defaults)
	if err != nil {
		return Result{}, err
	}
	byFlag := readFlags(v, flags)

	var result Result
	if err := v.UnmarshalExact(&result.Config, viper.DecodeHook(decodeHook())); err != nil {
		return Result{}, fmt.Errorf("configuration of %s: %w", file, at.without(inEnv, byFlag).locate(err))
	}
	if err := result.Config.Validate(); err != nil {
		return Result{}, fmt.Errorf("configuration of %s: %w", file, at.without(inEnv, byFlag).locate(err))
	}
	for key, value := range flatten(result.Config) {
		origin := "default"
		if inFile[key] {
			origin = "file " + file
		}
		if name, ok := inEnv[key]; ok {
			origin = "environment " + name
		}
		if name, ok := byFlag[key]; ok {
			origin = "flag --" + name
		}
		result.Values = append(result.Values, Value{key, fmt.Sprint(value), origin})
	}
	slices.SortFunc(result.Values, func(a, b Value) int { return strings.Compare(a.Key, b.Key) })
	return result, nil
}

// readFile merges the file into v and returns the keys that it sets, and their
// lines.
func readFile(v *viper.Viper, file string, known map[string]any) (map[string]bool, lines, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	own := viper.New()
	own.SetConfigType("yaml")
	if err := own.ReadConfig(bytes.NewReader(text)); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	at := linesOf(text)
	keys := map[string]bool{}
	var faults []error
	for _, key := range own.AllKeys() {
		if _, ok := known[key]; !ok && !isSetKey(key) {
			faults = append(faults, fmt.Errorf("%s: %w", file, at.locate(fmt.Errorf("unknown key %q", key))))
		}
		keys[key] = true
	}
	if err := checkSets(own.Get(setsKey)); err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", file, at.locate(err)))
	}
	if len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	return keys, at, v.MergeConfigMap(own.AllSettings())
}

// readEnvironment sets every key that has a variable and returns which
// variable it was. A variable that looks like a key and is none is an error: a
// misspelt limit must not be ignored in silence.
func readEnvironment(v *viper.Viper, environ []string, known map[string]any) (map[string]string, error) {
	byVariable := map[string]string{}
	for key := range known {
		byVariable[envPrefix+"_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))] = key
	}
	set := map[string]string{}
	var faults []error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix+"_") || name == HomeVariable {
			continue
		}
		key, ok := byVariable[name]
		if !ok {
			faults = append(faults, fmt.Errorf("environment: unknown setting %s", name))
			continue
		}
		v.Set(key, value)
		set[key] = name
	}
	return set, errors.Join(faults...)
}

func readFlags(v *viper.Viper, flags *pflag.FlagSet) map[string]string {
	set := map[string]string{}
	if flags == nil {
		return set
	}
	flags.Visit(func(f *pflag.Flag) {
		key, ok := FlagKeys[f.Name]
		if !ok {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			v.Set(key, list.GetSlice())
		} else {
			v.Set(key, f.Value.String())
		}
		set[key] = f.Name
	})
	return set
}

func decodeHook() mapstructure.DecodeHookFunc {
	return mapstructure.ComposeDecodeHookFunc(
		mapstructure.StringToTimeDurationHookFunc(),
		mapstructure.StringToSliceHookFunc(","),
		mapstructure.TextUnmarshallerHookFunc(),
	)
}

// flatten returns the leaves of a configuration by dotted key, each in the form
// in which a file would hold it.
func flatten(config node.Config) map[string]any {
	out := map[string]any{}
	flattenInto(out, "", reflect.ValueOf(config))
	return out
}

func flattenInto(out map[string]any, prefix string, value reflect.Value) {
	for i := range value.NumField() {
		field, key := value.Field(i), prefix+value.Type().Field(i).Tag.Get("mapstructure")
		if field.Kind() == reflect.Struct {
			flattenInto(out, key+".", field)
			continue
		}
		if field.Kind() == reflect.Map {
			flattenSets(out, key, field)
			continue
		}
		switch leaf := field.Interface().(type) {
		case time.Duration:
			out[key] = leaf.String()
		case encoding.TextMarshaler:
			text, _ := leaf.MarshalText() // of a size: cannot fail
			out[key] = string(text)
		default:
			out[key] = leaf
		}
	}
}

// Save writes the values that differ from the defaults into the home's file,
// replacing it. The file is complete or absent at every instant.
func Save(home string, config node.Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	v := viper.New()
	v.SetConfigType("yaml")
	defaults := flatten(node.DefaultConfig())
	for key, value := range flatten(config) {
		if !reflect.DeepEqual(value, defaults[key]) {
			v.Set(key, value)
		}
	}
	var text bytes.Buffer
	if err := v.WriteConfigTo(&text); err != nil {
		return err
	}
	return disk.WriteFile(filepath.Join(home, FileName), text.Bytes(), 0o600)
}
