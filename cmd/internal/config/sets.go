package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gotong/grid/node"
)

// setsKey holds the named backup sets, the one part of the configuration whose
// keys the user chooses.
const setsKey = "backup.sets"

// isSetKey reports whether a key is a field of a backup set.
func isSetKey(key string) bool {
	rest, ok := strings.CutPrefix(key, setsKey+".")
	if !ok {
		return false
	}
	_, field, _ := strings.Cut(rest, ".")
	return setFields[field]
}

// setFields are the keys of one set.
var setFields = func() map[string]bool {
	out := map[string]any{}
	flattenInto(out, "", reflect.ValueOf(node.SetConfig{}))
	fields := map[string]bool{}
	for key := range out {
		fields[key] = true
	}
	return fields
}()

// checkSets refuses what viper would drop in silence: sets that are no lists of
// keys, or empty.
func checkSets(sets any) error {
	if sets == nil {
		return nil
	}
	byName, ok := sets.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: want a name for each set", setsKey)
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if fields, ok := byName[name].(map[string]any); !ok || len(fields) == 0 {
			faults = append(faults, fmt.Errorf("%s.%s: want at least paths", setsKey, name))
		}
	}
	return errors.Join(faults...)
}

// flattenSets adds what is set in each set; what is not set is not shown.
func flattenSets(out map[string]any, key string, sets reflect.Value) {
	for _, name := range sets.MapKeys() {
		all := map[string]any{}
		flattenInto(all, key+"."+name.String()+".", sets.MapIndex(name))
		for field, value := range all {
			if !isUnset(value) {
				out[field] = value
			}
		}
	}
}

// isUnset reports whether a flattened value is that of a field nobody set.
func isUnset(value any) bool {
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.Slice {
		return v.Len() == 0
	}
	return v.IsZero() || value == unsetPeriod
}

var unsetPeriod = func() string {
	text, _ := encoding.TextMarshaler(node.Period(0)).MarshalText() // cannot fail
	return string(text)
}()
