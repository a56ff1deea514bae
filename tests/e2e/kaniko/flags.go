package main

import (
	"encoding/base64"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// order is what the flags ask for.
type order struct {
	context                                                       gitContext
	subPath, dockerfile, destination, cacheRepository, digestFile string
	buildArguments                                                []argument
	cache                                                         bool
}

type argument struct{ name, value string }

// gitContext is `git://host/org/repo.git#ref`, which Kaniko fetches over https.
type gitContext struct{ url, reference string }

func (source gitContext) String() string {
	if source.reference == "" {
		return source.url
	}
	return source.url + "#" + source.reference
}

func (source gitContext) host() string {
	host, _, _ := strings.Cut(strings.TrimPrefix(source.url, "https://"), "/")
	return host
}

var (
	image      = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	repository = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$`)
	host       = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?$`)
	location   = regexp.MustCompile(`^git://([A-Za-z0-9.-]+(:[0-9]+)?/[^#?@\s]+)(#(refs/(heads|tags)/[^#\s]+|[0-9a-f]{40}))?$`)
	named      = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)=((?s).*)$`)
)

// take reads one flag's value into the order; flags that may come once are in `once`.
var flags = map[string]func(*order, string) error{
	"context": func(o *order, value string) error {
		found := location.FindStringSubmatch(value)
		if found == nil {
			return fmt.Errorf("unknown context prefix, or not one that is used here: %q", value)
		}
		o.context = gitContext{"https://" + found[1], found[4]}
		return nil
	},
	"context-sub-path": func(o *order, value string) error {
		o.subPath = value
		return inside(value)
	},
	"dockerfile": func(o *order, value string) error {
		o.dockerfile = value
		if strings.HasPrefix(value, home+"/") {
			return nil
		}
		return inside(value)
	},
	"destination":        func(o *order, value string) error { o.destination = value; return matches(image, value) },
	"cache-repo":         func(o *order, value string) error { o.cacheRepository = value; return matches(repository, value) },
	"digest-file":        func(o *order, value string) error { o.digestFile = value; return absolute(value) },
	"insecure-registry":  func(_ *order, value string) error { return matches(host, value) },
	"cache":              func(o *order, value string) (err error) { o.cache, err = boolean(value); return err },
	"compressed-caching": func(_ *order, value string) error { _, err := boolean(value); return err },
	"push-retry":         func(_ *order, value string) error { _, err := strconv.ParseUint(value, 10, 8); return err },
	"log-format":         func(_ *order, value string) error { return matches(regexp.MustCompile(`^(text|color|json)$`), value) },
	"registry-map": func(_ *order, value string) error {
		from, to, paired := strings.Cut(value, "=")
		if !paired || !host.MatchString(from) {
			return fmt.Errorf("must be original=mirror: %q", value)
		}
		return matches(regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]+)?$`), to)
	},
	"build-arg": func(o *order, value string) error {
		found := named.FindStringSubmatch(value)
		if found == nil {
			return fmt.Errorf("without a value it would be the pod's own variable: %q", value)
		}
		o.buildArguments = append(o.buildArguments, argument{found[1], found[2]})
		return nil
	},
}

var repeatable = map[string]bool{"build-arg": true, "insecure-registry": true, "registry-map": true}

func parse(arguments []string) (order, error) {
	wanted := order{dockerfile: "Dockerfile"}
	seen := map[string]bool{}
	for _, one := range arguments {
		name, value, paired := strings.Cut(strings.TrimPrefix(one, "--"), "=")
		take, known := flags[name]
		switch {
		case !strings.HasPrefix(one, "--"):
			return wanted, fmt.Errorf("unknown command %q for \"executor\"", one)
		case !known:
			return wanted, fmt.Errorf("unknown flag: --%s", name)
		case !paired:
			return wanted, fmt.Errorf("flag needs an argument: --%s", name)
		case seen[name] && !repeatable[name]:
			return wanted, fmt.Errorf("given twice: --%s", name)
		}
		seen[name] = true
		if err := take(&wanted, value); err != nil {
			return wanted, fmt.Errorf("invalid argument for \"--%s\" flag: %w", name, err)
		}
	}
	for _, name := range []string{"context", "destination", "digest-file"} {
		if !seen[name] {
			return wanted, fmt.Errorf("you must provide --%s", name)
		}
	}
	return wanted, nil
}

// inside refuses what Kaniko would follow out of the context.
func inside(value string) error {
	if path.IsAbs(value) || strings.Contains(value, "://") || path.Clean(value) != value || strings.HasPrefix(value, "..") {
		return fmt.Errorf("leaves the context: %q", value)
	}
	return nil
}

func absolute(value string) error {
	if !path.IsAbs(value) {
		return fmt.Errorf("must be absolute: %q", value)
	}
	return nil
}

func matches(pattern *regexp.Regexp, value string) error {
	if !pattern.MatchString(value) {
		return fmt.Errorf("malformed: %q", value)
	}
	return nil
}

func boolean(value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, fmt.Errorf("must be true or false: %q", value)
	}
	return value == "true", nil
}

func basic(user, password string) string {
	return "basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
