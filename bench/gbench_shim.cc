// SPDX-License-Identifier: Apache-2.0
// The only C++ of the project: Google Benchmark (1.7 and later) behind a C interface.
extern "C" {
#include "base/error.h"
}
#include "bench/gbench_shim.h"

#include <benchmark/benchmark.h>

#include <regex.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Case {
    ep_gbench_case hooks;
    std::vector<double> samples_s;
    double begin_s = 0.0;
    int64_t calls = 0;
    bool begun = false;
};

// What ranks other than 0 report.
class Silent : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context &) override { return true; }
    void ReportRuns(const std::vector<Run> &) override {}
};

// Debian's library was built without NDEBUG and so calls every program that uses it a debug build.
// What matters is how the timed code was built: our own flags are in the context instead.
class Honest : public benchmark::BenchmarkReporter {
  public:
    // Up to 1.9 the library keeps the reporter that it makes, later it hands it over.
    explicit Honest(benchmark::BenchmarkReporter *inner) : inner_(inner) {}
    explicit Honest(std::unique_ptr<benchmark::BenchmarkReporter> inner)
        : owned_(std::move(inner)), inner_(owned_.get())
    {
    }

    bool ReportContext(const Context &context) override
    {
        std::ostringstream out, err;
        inner_->SetOutputStream(&out);
        inner_->SetErrorStream(&err);
        const bool goes_on = inner_->ReportContext(context);
        inner_->SetOutputStream(&GetOutputStream());
        inner_->SetErrorStream(&GetErrorStream());
        GetOutputStream() << WithOurBuildType(out.str());
        GetErrorStream() << WithoutDebugWarning(err.str());
        return goes_on;
    }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        inner_->ReportRuns(runs);
        GetOutputStream().flush();
    }
    void Finalize() override { inner_->Finalize(); }

  private:
    static std::string WithOurBuildType(std::string text)
    {
#ifdef __OPTIMIZE__
        const std::string theirs = "\"library_build_type\": \"debug\"";
        const size_t at = text.find(theirs);
        if (at != std::string::npos) {
            text.replace(at, theirs.size(),
                         "\"library_build_type\": \"release\",\n"
                         "    \"library_calls_itself\": \"debug\"");
        }
#endif
        return text;
    }

    static std::string WithoutDebugWarning(const std::string &text)
    {
        std::istringstream lines(text);
        std::string line, kept;
        while (std::getline(lines, line)) {
            if (line.find("Library was built as DEBUG") == std::string::npos) {
                kept += line + "\n";
            }
        }
        return kept;
    }

    std::unique_ptr<benchmark::BenchmarkReporter> owned_;
    benchmark::BenchmarkReporter *inner_; // the library's own
};

double UtcSeconds()
{
    using clock = std::chrono::system_clock;
    return std::chrono::duration<double>(clock::now().time_since_epoch()).count();
}

double MonotonicSeconds()
{
    using clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(clock::now().time_since_epoch()).count();
}

bool IsTheirs(const char *arg)
{
    return std::strncmp(arg, "--benchmark_", 12) == 0 || std::strncmp(arg, "--v=", 4) == 0;
}

bool HasName(const std::string &arg, const char *name)
{
    const size_t length = std::strlen(name);
    return arg.compare(0, length, name) == 0 && (arg.size() == length || arg[length] == '=');
}

// The library prints its usage, and exits with 0, where one of these has another value.
ep_status CheckChoice(const std::string &flag)
{
    static const struct {
        const char *name;
        std::vector<const char *> values;
    } choices[] = {
        {"--benchmark_format=", {"console", "json", "csv"}},
        {"--benchmark_out_format=", {"console", "json", "csv"}},
        {"--benchmark_time_unit=", {"ns", "us", "ms", "s"}},
    };
    for (const auto &choice : choices) {
        const size_t length = std::strlen(choice.name);
        std::string all;
        bool known = flag.compare(0, length, choice.name) != 0;
        for (const char *value : choice.values) {
            known = known || flag.compare(length, std::string::npos, value) == 0;
            all += std::string(all.empty() ? "" : ", ") + value;
        }
        if (!known) {
            return ep_error_set(EP_EINVAL, "%s: one of %s is expected", flag.c_str(), all.c_str());
        }
    }
    return EP_OK;
}

// The library exits in the middle of the run where it cannot write there.
ep_status CheckOutput(const std::string &flag)
{
    const std::string out = "--benchmark_out=";
    if (flag.compare(0, out.size(), out) != 0) {
        return EP_OK;
    }
    const std::string path = flag.substr(out.size());
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const bool exists = access(path.c_str(), F_OK) == 0;
    struct stat info;
    const bool is_folder = path.empty() || (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode));
    if (is_folder || access(exists ? path.c_str() : folder.c_str(), W_OK) != 0) {
        return ep_error_set(EP_EIO, "%s: cannot be written: %s", flag.c_str(),
                            is_folder ? "a file was expected" : std::strerror(errno));
    }
    return EP_OK;
}

// The library takes POSIX extended expressions, and only says on stderr that it cannot compile one.
ep_status CheckFlag(const std::string &flag, int64_t *repetitions)
{
    const std::string count = "--benchmark_repetitions=", filter = "--benchmark_filter=";
    if (flag.compare(0, count.size(), count) == 0) {
        char *end = nullptr;
        *repetitions = std::strtoll(flag.c_str() + count.size(), &end, 10);
        if (*end != '\0' || *repetitions < 1 || *repetitions > 1000000) {
            return ep_error_set(EP_EINVAL, "%s: a number from 1 to 1000000 is expected",
                                flag.c_str());
        }
    }
    if (flag.compare(0, filter.size(), filter) == 0) {
        const char *text = flag.c_str() + filter.size();
        regex_t compiled;
        if (regcomp(&compiled, *text == '-' ? text + 1 : text, REG_EXTENDED | REG_NOSUB) != 0) {
            return ep_error_set(EP_EINVAL, "%s: not an extended regular expression", flag.c_str());
        }
        regfree(&compiled);
    }
    return EP_OK;
}

} // namespace

struct ep_gbench {
    std::vector<std::string> flags;
    std::vector<std::unique_ptr<Case>> cases;
    bool quiet = false;
    int64_t repetitions = 0; // asked for, or 0
    int64_t planned = 1;     // of the run in progress
    int64_t num_run = 0;
    int64_t num_kept = 0;
    ep_status first_failure = EP_OK;

    bool is_csv = false; // needs every counter in every row

    void SetRate(benchmark::State &state, const char *name, double amount) const;
    void RunCase(Case &one, benchmark::State &state);
};

void ep_gbench::SetRate(benchmark::State &state, const char *name, double amount) const
{
    if (amount > 0.0) {
        state.counters[name] =
            benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
    } else if (is_csv) {
        state.counters[name] = std::numeric_limits<double>::quiet_NaN();
    }
}

// One repetition. The library's own loop is timed twice: by it, and here, since its reporters may be
// told to keep only aggregates.
void ep_gbench::RunCase(Case &one, benchmark::State &state)
{
    ep_status status = first_failure;
    num_kept += one.calls == 0;
    if (status == EP_OK && !one.begun) {
        one.begun = true;
        one.begin_s = UtcSeconds();
        status = one.hooks.begin(one.hooks.ctx);
    }
    const bool is_shared = first_failure == EP_OK && one.hooks.sync != nullptr;
    if (is_shared) {
        status = one.hooks.sync(one.hooks.ctx, status);
    }
    const bool has_begun = status == EP_OK;
    if (status != EP_OK) {
        state.SkipWithError("not run, see the message on stderr");
    }
    const double start = MonotonicSeconds();
    for (auto _ : state) {
        const ep_status ran = one.hooks.run(one.hooks.ctx);
        status = status == EP_OK ? ran : status;
    }
    const double end = MonotonicSeconds();
    if (is_shared && has_begun) { // a rank that fails in the loop must not leave the others waiting
        status = one.hooks.sync(one.hooks.ctx, status);
    }
    const double iterations = static_cast<double>(one.hooks.iterations);
    one.samples_s.push_back((end - start) / iterations);
    SetRate(state, "flops_per_s", one.hooks.flops);
    SetRate(state, "bytes_per_s", one.hooks.bytes);
    SetRate(state, "pairs_per_s", one.hooks.items);
    one.calls++;
    if (one.begun && one.calls >= planned) {
        const int64_t num = status == EP_OK ? static_cast<int64_t>(one.samples_s.size()) : 0;
        const ep_status ended =
            one.hooks.end(one.hooks.ctx, one.samples_s.data(), num, one.begin_s);
        status = status == EP_OK ? ended : status;
        one.begun = false;
        one.calls = 0;
        one.samples_s.clear();
        num_run++;
    }
    first_failure = first_failure == EP_OK ? status : first_failure;
}

extern "C" enum ep_status ep_gbench_create(int *argc, char **argv, bool quiet,
                                           struct ep_gbench **bench)
try {
    auto made = std::make_unique<ep_gbench>();
    made->quiet = quiet;
    int kept = 0;
    for (int i = 0; i < *argc; i++) {
        if (i > 0 && IsTheirs(argv[i])) {
            made->flags.emplace_back(argv[i]);
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = nullptr;
    *argc = kept;
    std::vector<char *> theirs = {argv[0]};
    for (std::string &flag : made->flags) {
        ep_status status = CheckFlag(flag, &made->repetitions);
        status = status == EP_OK ? CheckChoice(flag) : status;
        status = status == EP_OK && !quiet ? CheckOutput(flag) : status;
        if (status != EP_OK) {
            return status;
        }
        made->is_csv = made->is_csv || flag == "--benchmark_format=csv" ||
                       flag == "--benchmark_out_format=csv";
        if (!(quiet && HasName(flag, "--benchmark_out"))) {
            theirs.push_back(&flag[0]);
        }
    }
    // mpirun gives rank 0 a terminal of its own, so the library's guess at colours means nothing
    std::string plain = "--benchmark_color=false";
    if (!ep_gbench_has_flag(made.get(), "--benchmark_color")) {
        theirs.push_back(&plain[0]);
    }
    theirs.push_back(nullptr);
    int left = static_cast<int>(theirs.size()) - 1;
    benchmark::Initialize(&left, theirs.data());
    if (left > 1) {
        return ep_error_set(EP_EINVAL, "Google Benchmark does not know '%s'", theirs[1]);
    }
    *bench = made.release();
    return EP_OK;
} catch (const std::bad_alloc &) {
    return ep_error_set(EP_ENOMEM, "no memory for the benchmark flags");
}

extern "C" void ep_gbench_destroy(struct ep_gbench *bench)
{
    if (bench != nullptr) {
        benchmark::ClearRegisteredBenchmarks();
        benchmark::Shutdown();
        delete bench;
    }
}

extern "C" int64_t ep_gbench_repetitions(const struct ep_gbench *bench)
{
    return bench->repetitions;
}

extern "C" bool ep_gbench_has_flag(const struct ep_gbench *bench, const char *name)
{
    for (const std::string &flag : bench->flags) {
        if (HasName(flag, name)) {
            return true;
        }
    }
    return false;
}

extern "C" void ep_gbench_add_context(const char *key, const char *value)
{
    benchmark::AddCustomContext(key, value);
}

extern "C" enum ep_status ep_gbench_register(struct ep_gbench *bench,
                                             const struct ep_gbench_case *one)
try {
    bench->cases.push_back(std::make_unique<Case>());
    bench->cases.back()->hooks = *one;
    return EP_OK;
} catch (const std::bad_alloc &) {
    return ep_error_set(EP_ENOMEM, "no memory for one more benchmark");
}

extern "C" enum ep_status ep_gbench_run(struct ep_gbench *bench, int64_t repetitions,
                                        int64_t *num_run, int64_t *num_kept)
try {
    bench->planned = bench->repetitions > 0 ? bench->repetitions : repetitions;
    for (auto &one : bench->cases) {
        Case *fixed = one.get();
        benchmark::RegisterBenchmark(
            fixed->hooks.name,
            [bench, fixed](benchmark::State &state) { bench->RunCase(*fixed, state); })
            ->Iterations(fixed->hooks.iterations)
            ->Repetitions(static_cast<int>(bench->planned))
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
    }
    if (bench->quiet) {
        std::ostream nowhere(nullptr);
        Silent silent;
        silent.SetOutputStream(&nowhere);
        silent.SetErrorStream(&nowhere);
        benchmark::RunSpecifiedBenchmarks(&silent);
    } else {
        Honest honest(benchmark::CreateDefaultDisplayReporter());
        benchmark::RunSpecifiedBenchmarks(&honest);
    }
    *num_run = bench->num_run;
    *num_kept = bench->num_kept;
    return bench->first_failure;
} catch (const std::bad_alloc &) {
    return ep_error_set(EP_ENOMEM, "no memory for the benchmarks");
}
