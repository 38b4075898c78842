/* SPDX-License-Identifier: Apache-2.0 */
/* MPI_T control variables. SMPI has none: what it was started with stands in their place. */
#include "bench/comm_settings.h"

#include "bench/comm_mpi.h"
#include "bench/simulated.h"

#include <stdio.h>

#ifdef EP_SIMULATED

enum ep_status ep_comm_settings_start(void)
{
    return EP_OK;
}

void ep_comm_settings_stop(void)
{
}

bool ep_comm_settings_write(const char *name, int value)
{
    (void)name; /* of alltoallv and of alltoall: both are told at once */
    return ep_simulated_is_forced(value);
}

const char *const *ep_comm_mpi_settings(void)
{
    return ep_simulated_settings();
}

#else

enum { NUM_SETTINGS = 13 };

static char settings_text[NUM_SETTINGS][128];
static const char *settings[NUM_SETTINGS + 1];

/* A control variable's value as text; false where the library has none of that name. */
static bool read_setting(const char *name, char *text, size_t length)
{
    int idx = 0;
    if (MPI_T_cvar_get_index(name, &idx) != MPI_SUCCESS) {
        return false;
    }
    char unused[2];
    int name_length = 1;
    int desc_length = 1;
    int verbosity = 0;
    int bind = 0;
    int scope = 0;
    MPI_Datatype type = MPI_DATATYPE_NULL;
    MPI_T_enum enumeration = MPI_T_ENUM_NULL;
    if (MPI_T_cvar_get_info(idx, unused, &name_length, &verbosity, &type, &enumeration, unused + 1,
                            &desc_length, &bind, &scope) != MPI_SUCCESS) {
        return false;
    }
    MPI_T_cvar_handle handle = MPI_T_CVAR_HANDLE_NULL;
    int count = 0;
    if (MPI_T_cvar_handle_alloc(idx, NULL, &handle, &count) != MPI_SUCCESS) {
        return false;
    }
    union {
        char text[4096]; /* Open MPI's texts take up to 2048 */
        int number;
        bool flag;
        unsigned long large;
    } value = {.large = 0};
    bool read = false;
    if (type == MPI_CHAR ? count <= (int)sizeof value.text : count == 1) {
        read = MPI_T_cvar_read(handle, &value) == MPI_SUCCESS;
    }
    if (read && type == MPI_CHAR) {
        snprintf(text, length, "%s=%.100s", name, value.text);
    } else if (read && type == MPI_C_BOOL) {
        snprintf(text, length, "%s=%d", name, value.flag);
    } else if (read && (type == MPI_INT || type == MPI_UNSIGNED)) {
        snprintf(text, length, "%s=%d", name, value.number);
    } else if (read) {
        snprintf(text, length, "%s=%lu", name, value.large);
    }
    MPI_T_cvar_handle_free(&handle);
    return read;
}

static void read_settings(void)
{
    static const char *const names[NUM_SETTINGS] = {
        "pml", "btl", "btl_vader_eager_limit", "btl_vader_single_copy_mechanism",
        "btl_tcp_eager_limit", "coll_tuned_use_dynamic_rules", "mpi_yield_when_idle",
        "btl_vader_rndv_eager_limit", "smsc", "btl_tcp_rndv_eager_limit", "btl_tcp_max_send_size",
        "btl_tcp_flags", "osc",
    };
    int num = 0;
    for (int i = 0; i < NUM_SETTINGS; i++) {
        if (read_setting(names[i], settings_text[num], sizeof settings_text[num])) {
            settings[num] = settings_text[num];
            num++;
        }
    }
    settings[num] = NULL;
}

enum ep_status ep_comm_settings_start(void)
{
    int provided = 0;
    const enum ep_status status = ep_comm_check(MPI_T_init_thread(MPI_THREAD_SINGLE, &provided),
                                                "MPI_T_init_thread");
    if (status == EP_OK) {
        read_settings();
    }
    return status;
}

void ep_comm_settings_stop(void)
{
    MPI_T_finalize();
}

bool ep_comm_settings_write(const char *name, int value)
{
    int idx = 0;
    int count = 0;
    int back = value - 1;
    MPI_T_cvar_handle handle = MPI_T_CVAR_HANDLE_NULL;
    if (MPI_T_cvar_get_index(name, &idx) != MPI_SUCCESS ||
        MPI_T_cvar_handle_alloc(idx, NULL, &handle, &count) != MPI_SUCCESS) {
        return false;
    }
    const bool written = count == 1 && MPI_T_cvar_write(handle, &value) == MPI_SUCCESS &&
                         MPI_T_cvar_read(handle, &back) == MPI_SUCCESS && back == value;
    MPI_T_cvar_handle_free(&handle);
    return written;
}

const char *const *ep_comm_mpi_settings(void)
{
    return settings;
}

#endif
