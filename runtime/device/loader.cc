// SPDX-License-Identifier: Apache-2.0
// Finding and loading backends: the one inside this program and shared objects, through the same entry symbol.
#include <dlfcn.h>
#include <spdlog/spdlog.h>

#include <cstring>
#include <filesystem>
#include <mutex>

#include "runtime/device/device.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

void HostLog(int32_t level, const char* text) {
  const auto levels = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn, spdlog::level::err};
  spdlog::log(levels.begin()[level < 0 ? 0 : level > 3 ? 3 : level], "{}", text ? text : "");
}

const assay_host kHost = {sizeof(assay_host), ASSAY_ABI_VERSION, HostLog};

// The first required member that a backend left out, or nullptr.
const char* MissingMember(const assay_backend& t) {
#define ASSAY_MEMBER(m) \
  { #m, t.m != nullptr }
  const struct {
    const char* name;
    bool present;
  } required[] = {
      ASSAY_MEMBER(name),
      ASSAY_MEMBER(version),
      ASSAY_MEMBER(device_count),
      ASSAY_MEMBER(device_info),
      ASSAY_MEMBER(device_create),
      ASSAY_MEMBER(device_destroy),
      ASSAY_MEMBER(buffer_create),
      ASSAY_MEMBER(buffer_destroy),
      ASSAY_MEMBER(buffer_map),
      ASSAY_MEMBER(stream_create),
      ASSAY_MEMBER(stream_destroy),
      ASSAY_MEMBER(stream_synchronize),
      ASSAY_MEMBER(event_create),
      ASSAY_MEMBER(event_destroy),
      ASSAY_MEMBER(event_record),
      ASSAY_MEMBER(event_wait),
      ASSAY_MEMBER(event_synchronize),
      ASSAY_MEMBER(event_elapsed_ns),
      ASSAY_MEMBER(copy_to_device),
      ASSAY_MEMBER(copy_to_host),
      ASSAY_MEMBER(copy_on_device),
      ASSAY_MEMBER(weight_packed_size),
      ASSAY_MEMBER(weight_pack),
      ASSAY_MEMBER(supports),
      ASSAY_MEMBER(workspace_size),
      ASSAY_MEMBER(enqueue),
  };
#undef ASSAY_MEMBER
  for (const auto& member : required) {
    if (!member.present) return member.name;
  }
  return nullptr;
}

// Backends that lie beside the program: libassay-*.so.
std::vector<fs::path> BackendsBesideProgram() {
  std::vector<fs::path> found;
  std::error_code ec;
  const fs::path exe = fs::read_symlink("/proc/self/exe", ec);
  if (ec) return found;
  for (const auto& entry : fs::directory_iterator(exe.parent_path(), ec)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("libassay-") && name.ends_with(".so")) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::shared_ptr<Backend> Backend::Load(const std::string& path) {
  const std::string where = path.empty() ? "the built-in backend" : path;
  std::shared_ptr<Backend> backend(new Backend());
  backend->path_ = path;
  backend->handle_ = dlopen(path.empty() ? nullptr : path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!backend->handle_) {
    throw Error(where + ": cannot be loaded as a backend: " + dlerror());
  }
  auto* symbol = dlsym(backend->handle_, ASSAY_BACKEND_ENTRY_SYMBOL);
  if (!symbol) {
    throw Error(where + ": has no symbol " ASSAY_BACKEND_ENTRY_SYMBOL
                        "; a backend exports it (docs/writing-a-backend.md)");
  }
  const auto entry = reinterpret_cast<assay_backend_entry_fn>(symbol);
  assay_message msg{};
  msg.struct_size = sizeof(msg);
  backend->table_.struct_size = sizeof(assay_backend);
  CheckStatus(entry(&kHost, &backend->table_, &msg), msg, where);
  if (backend->table_.abi_version != ASSAY_ABI_VERSION) {
    throw Error(where + ": was built for ABI version " + std::to_string(backend->table_.abi_version) +
                ", this program speaks " + std::to_string(ASSAY_ABI_VERSION) + "; rebuild it against this header");
  }
  if (const char* missing = MissingMember(backend->table_)) {
    throw Error(where + ": the backend's table lacks the required member '" + missing + "'");
  }
  return backend;
}

Backend::~Backend() {
  // A backend may have started threads and registered exit handlers, so its code stays mapped.
}

std::vector<assay_device_info> Backend::Devices(std::string* reason) const {
  assay_message msg{};
  msg.struct_size = sizeof(msg);
  int32_t count = 0;
  const char* why = nullptr;
  CheckStatus(table_.device_count(&count, &why, &msg), msg, name() + ": counting devices");
  if (reason) *reason = count == 0 ? (why ? why : "no device is present") : "";
  std::vector<assay_device_info> devices;
  for (int32_t i = 0; i < count; ++i) {
    assay_device_info info{};
    info.struct_size = sizeof(info);
    CheckStatus(table_.device_info(i, &info, &msg), msg, name() + ": device " + std::to_string(i));
    info.id[sizeof(info.id) - 1] = info.name[sizeof(info.name) - 1] = info.detail[sizeof(info.detail) - 1] = 0;
    devices.push_back(info);
  }
  return devices;
}

std::vector<FoundBackend> FindBackends() {
  std::vector<FoundBackend> found;
  const auto add = [&](const std::string& path) {
    FoundBackend f;
    f.where = path.empty() ? "built in" : path;
    try {
      f.backend = Backend::Load(path);
      f.devices = f.backend->Devices(&f.note);
    } catch (const Error& e) {
      f.note = e.what();
    }
    found.push_back(std::move(f));
  };
  add("");
  for (const fs::path& path : BackendsBesideProgram()) add(path.string());
  return found;
}

namespace {

DeviceChoice ChoosePlugin(const std::string& spec) {
  std::string path = spec;
  int32_t index = 0;
  const size_t colon = spec.rfind(':');
  if (colon != std::string::npos && spec.find_first_not_of("0123456789", colon + 1) == std::string::npos &&
      colon + 1 < spec.size() && spec.size() - colon < 6) {
    path = spec.substr(0, colon);
    index = std::stoi(spec.substr(colon + 1));
  }
  // Without a slash dlopen would search the system's library folders.
  auto backend = Backend::Load(fs::absolute(path).string());
  std::string reason;
  const auto devices = backend->Devices(&reason);
  if (devices.empty()) throw Error(path + ": the backend '" + backend->name() + "' has no device: " + reason);
  if (index >= static_cast<int32_t>(devices.size())) {
    throw Error(path + ": has " + std::to_string(devices.size()) + " device(s), so index " + std::to_string(index) +
                " does not exist");
  }
  return {backend, index, devices[index], "named by --device"};
}

}  // namespace

DeviceChoice ChooseDevice(const std::string& spec) {
  if (spec.find('/') != std::string::npos || spec.ends_with(".so")) return ChoosePlugin(spec);

  DeviceChoice best;
  std::string known, notes;
  int candidates = 0;
  for (const FoundBackend& f : FindBackends()) {
    if (f.devices.empty()) notes += (notes.empty() ? "" : "; ") + f.note;
    for (size_t i = 0; i < f.devices.size(); ++i) {
      const assay_device_info& info = f.devices[i];
      if (spec == info.id) return {f.backend, static_cast<int32_t>(i), info, "named by --device"};
      known += (known.empty() ? "" : ", ") + std::string(info.id);
      if (!spec.empty() || info.is_reference) continue;
      ++candidates;
      if (!best.backend || info.is_accelerator > best.info.is_accelerator) {
        best = {f.backend, static_cast<int32_t>(i), info, ""};
      }
    }
  }
  if (!spec.empty() && !known.empty()) {
    throw Error("--device " + spec + ": no such device; present are: " + known + ", or the path of a plug-in (.so)" +
                (notes.empty() ? "" : "; " + notes));
  }
  if (!best.backend) throw Error("no device is present: " + notes);
  best.reason = candidates == 1            ? "the only device present"
                : best.info.is_accelerator ? "the first accelerator present"
                                           : "no accelerator is present";
  return best;
}

}  // namespace assay
